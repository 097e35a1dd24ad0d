/*
 * The life of an order, as in docs/design.md, for a model checker: one product, two orders (of one unit and of two),
 * two edges, two workers, the outbox relay, reconcile, an operator who restocks, and whatever can go wrong between them.
 * README.md says how to read and run it, and what it leaves out.
 *
 * One atomic step is what is atomic in reality: a Lua script, a transaction, a call to the queue. Between two steps
 * anybody may stall for as long as it likes. Calls fail freely: each may be carried out or not, with its answer lost.
 */

#ifndef STOCK
#define STOCK 2          /* units on sale at first: less than both orders ask for */
#endif
#ifndef RESTOCK
#define RESTOCK 1        /* units of the one restock; 0: there is none */
#endif
#ifndef LOSSES
#define LOSSES 1         /* how often Redis loses everything */
#endif
#ifndef CRASHES
#define CRASHES 255      /* how often a worker dies between commit and settle; 255: without a bound */
#endif

#define ORDERS 2
#define UNITS(o) (o + 1)

/* ---- What is stored, and where -------------------------------------------------------------------------------- */

mtype = { NONE, COMPLETED, FAILED };                /* the row of an order in MySQL */
mtype = { UNANSWERED, ACCEPTED, CANCELLED };        /* 202; 503 queue_unavailable. All other answers promise nothing */

typedef Redis {
  bit loaded;            /* stock:{p} exists */
  short available;       /* stock:{p} */
  byte version;          /* sale:{p}: the version of the row that was loaded, */
  byte seen;             /*   the newest version that a settle or a restock has shown, */
  byte epoch;            /*   and a random value that is gone when Redis has lost its data; 0: none */
  bit reserved[ORDERS];
  bit outbox[ORDERS];    /* the entry of a batch, see BATCH_OF */
  bit claimed[ORDERS];   /* part of the entry */
  bit settled[ORDERS];   /* settled:{p}: the tombstones */
  bit restocked          /* settled:{p}: restock:<id> */
};

typedef Mysql {
  byte stock = STOCK;
  byte version;
  mtype row[ORDERS] = NONE;
  byte ledger[ORDERS];   /* the version that an order's commit made; 0: it has not changed the stock */
  byte restock           /* likewise */
};

Redis redis;
Mysql mysql;

/* At least one message of the order is on the queue. One bit stands for any number of duplicates, as a worker may
 * always fail to delete what it has received. A message that a worker holds may be received by another one as well. */
bit queue[ORDERS];

#ifdef EPOCH_IN_ORDER
byte epoch_of[ORDERS];   /* part of the order, wherever that is */
#endif

/* ---- What only the checker knows ------------------------------------------------------------------------------ */

byte losses = LOSSES;                      /* still to come */
byte crashes = CRASHES;
mtype answer[ORDERS] = UNANSWERED;
bit moved[ORDERS];                         /* a settle has had its effect, since Redis last lost its data */
bit orphan[ORDERS];                        /* nobody will ever settle the order as fresh: see DRIFT */
bit working[2], loading[2];

/* Broken promises: each is set and asserted where it can come about. */
bit P1_oversold, P2_accepted_order_lost, P2_cancelled_order_decided, P3_decided_twice, P3_settled_twice,
  P4_mysql_differs_from_what_was_sold, P4_redis_differs_from_mysql, P5_leaked;

#define COMPLETED_UNITS ((mysql.row[0] == COMPLETED) * UNITS(0) + (mysql.row[1] == COMPLETED) * UNITS(1))
#define ON_SALE (STOCK + (mysql.restock != 0) * RESTOCK)

/* What the protocol leaves to reconcile, which compares Redis with MySQL when the product is quiet: an order whose
 * reservation Redis has lost, which was completed after the stock was loaded anew, and which nobody will settle as
 * fresh, as its decider has died after the commit, or has lost the answer of the commit, or that of a settle which was
 * not carried out. Its units are available in Redis, and sold in MySQL. Exactly these units, and no others. */
#define DRIFTS(o) (orphan[o] && !moved[o] && mysql.ledger[o] > redis.version)
#if defined(EXCUSE_NOTHING) || defined(EPOCH_IN_ORDER)
#define DRIFT 0
#else
#define DRIFT (DRIFTS(0) * UNITS(0) + DRIFTS(1) * UNITS(1))
#endif

/* ---- The scripts ---------------------------------------------------------------------------------------------- */

/* The orders that one call has reserved are one entry of the outbox. An order is in the outbox as long as it is reserved
 * and its entry is there. By default each order has a call of its own; -DBATCH has both in one. */
#ifdef BATCH
#define BATCH_OF(o) 0
bit known[ORDERS];       /* the edge knows that the order is on the queue, or cancelled */
#else
#define BATCH_OF(o) o
#endif

/* The entry of a batch goes. */
inline remove(b) {
  redis.outbox[b] = 0;
  redis.claimed[b] = 0
}

/* The edge knows what has become of an order. With the last one of a batch its entry goes. */
inline acknowledge(o) {
#if defined(BATCH) && !defined(ACKNOWLEDGE_A_PART)
  known[o] = 1;
  if
  :: known[0] && known[1] -> remove(0)
  :: else
  fi
#else
  remove(BATCH_OF(o))
#endif
}

inline reserve_lua(o) {
  redis.available = redis.available - UNITS(o);
  redis.reserved[o] = 1;
#ifdef EPOCH_IN_ORDER
  epoch_of[o] = redis.epoch;
#endif
#ifndef NO_OUTBOX
  redis.outbox[BATCH_OF(o)] = 1
#endif
}

#ifdef NO_CLAIM
#define MAY_CANCEL(o) redis.reserved[o]
#else
#define MAY_CANCEL(o) (redis.reserved[o] && redis.outbox[BATCH_OF(o)] && !redis.claimed[BATCH_OF(o)])
#endif

inline cancel_lua(o) {
  if
  :: MAY_CANCEL(o) ->
    redis.available = redis.available + UNITS(o);
    redis.reserved[o] = 0;
    acknowledge(o);
    answer[o] = CANCELLED;
    P2_cancelled_order_decided = mysql.row[o] != NONE;
    assert(!P2_cancelled_order_decided)
  :: else
  fi
}

#if defined(ALWAYS_TAKE)
#define TAKES_OUT(v) true
#elif defined(NEVER_TAKE)
#define TAKES_OUT(v) false
#else
#define TAKES_OUT(v) (v > redis.version)
#endif

inline has_effect(o) {
  P3_settled_twice = moved[o];
  assert(!P3_settled_twice);
  moved[o] = 1
}

inline raise_seen(v) {
  redis.seen = (v > redis.seen -> v : redis.seen)
}

#ifdef EPOCH_IN_ORDER
/* A proposal: the order carries the epoch of its reservation, and every settle, fresh or not, the version of the order's
 * own commit, from the ledger. A reservation that is missing was then either lost, if the epoch is another one, or
 * settled. Nobody needs to know whether it is the first to settle, and nothing is left to reconcile. */
inline settle_lua(o, v, is_fresh) {
  raise_seen(mysql.ledger[o]);
  if
  :: redis.reserved[o] ->
    has_effect(o);
    redis.reserved[o] = 0;
    redis.available = redis.available + (mysql.row[o] == FAILED) * UNITS(o)
  :: !redis.reserved[o] && mysql.row[o] == COMPLETED && redis.loaded && epoch_of[o] != redis.epoch &&
     mysql.ledger[o] > redis.version && !redis.settled[o] ->
    has_effect(o);
    redis.settled[o] = 1;
    redis.available = redis.available - UNITS(o)
  :: else
  fi
}
#else
inline settle_lua(o, v, is_fresh) {
  raise_seen(v);
  if
  :: redis.reserved[o] ->
    has_effect(o);
    redis.reserved[o] = 0;
    if
    :: mysql.row[o] == FAILED -> redis.available = redis.available + UNITS(o)
#ifndef NO_TOMB
    :: mysql.row[o] == COMPLETED && !is_fresh -> redis.settled[o] = 1
#endif
    :: else
    fi
  :: !redis.reserved[o] && is_fresh && mysql.row[o] == COMPLETED && redis.loaded && TAKES_OUT(v) && !redis.settled[o] ->
    has_effect(o);
    redis.available = redis.available - UNITS(o)
  :: else
  fi
}
#endif

inline get_epoch() {
  redis.epoch = (redis.epoch == 0 -> LOSSES - losses + 1 : redis.epoch);
  epoch = redis.epoch
}

#ifdef NO_EPOCH
#define IN_EPOCH true
#else
#define IN_EPOCH (epoch == redis.epoch)
#endif

inline load_lua() {
  if
  :: !redis.loaded && version >= redis.seen && IN_EPOCH ->
    redis.loaded = 1;
    redis.available = stock;
    redis.version = version;
    redis.seen = version
  :: else
  fi
}

/* Version and units are those of MySQL. */
inline restock_lua(v) {
  raise_seen(v);
  if
  :: redis.loaded && !redis.restocked && v > redis.version ->
    redis.available = redis.available + RESTOCK;
#if !defined(RESTOCK_WITHOUT_ID) && !defined(RESTOCK_WITHOUT_MARK)
    redis.restocked = 1
#endif
  :: else
  fi
}

/* ---- MySQL and the queue -------------------------------------------------------------------------------------- */

inline check_mysql() {
  P1_oversold = COMPLETED_UNITS > ON_SALE;
  assert(!P1_oversold);
  P4_mysql_differs_from_what_was_sold = mysql.stock + COMPLETED_UNITS != ON_SALE;
  assert(!P4_mysql_differs_from_what_was_sold)
}

#ifdef NO_ROW
#define DECIDABLE(o) true
#else
#define DECIDABLE(o) (mysql.row[o] == NONE)
#endif

#ifdef NO_LOCK
#define ENOUGH(o) (stock >= UNITS(o))
#else
#define ENOUGH(o) (mysql.stock >= UNITS(o))
#endif

inline decide(o) {
  P3_decided_twice = mysql.row[o] != NONE;
  assert(!P3_decided_twice);
  P2_cancelled_order_decided = answer[o] == CANCELLED;
  assert(!P2_cancelled_order_decided);
  answer[o] = UNANSWERED;                                    /* the promise is kept */
  version = mysql.version;
  fresh = 1
}

inline complete(o) {
  mysql.stock = mysql.stock - UNITS(o);
  mysql.version++;
  mysql.ledger[o] = mysql.version;
  decide(o);
  mysql.row[o] = COMPLETED;
  check_mysql()
}

inline fail(o) {
  decide(o);
  mysql.row[o] = FAILED
}

inline enqueue(o) {
  queue[o] = 1
}

inline accept(o) {
  answer[o] = (mysql.row[o] == NONE -> ACCEPTED : UNANSWERED)
}

inline unknown(o) {
#if defined(UNKNOWN_IS_202)
  accept(o)
#elif defined(CANCEL_ON_UNKNOWN)
  cancel_lua(o)
#else
  skip
#endif
}

/* A worker has nothing in hand any more. */
inline rest(o) {
  o = 0; version = 0; fresh = 0; working[w] = 0
}

/* A fresh decision will never be settled as fresh. That is of no account if its reservation cannot get lost any more. */
inline abandon(o) {
  orphan[o] = orphan[o] || fresh && mysql.row[o] == COMPLETED && (losses > 0 || !redis.reserved[o] && !moved[o])
}

#ifdef SETTLE_TWICE_FRESH
#define AGAIN fresh
#else
#define AGAIN 0
#endif
#ifdef RESTOCK_WITHOUT_ID
#define AGAIN_RESTOCK again
#else
#define AGAIN_RESTOCK restocking
#endif
#define CRASH crashes = (crashes == 255 -> 255 : crashes - 1)

/* ---- Who does what --------------------------------------------------------------------------------------------
 *
 * Where STEP stands, others may act in between, and the actor may stall or die. That makes no difference, so that by
 * default there is no such step: a message that is received and not yet decided might as well be on the queue; an edge
 * that is refused and has not yet cancelled might as well not have asked; a message, or an outbox entry, that is not
 * removed until later is one that is worked on again, without effect. -DSTEPWISE checks that nothing is hidden by it. */
#ifdef STEPWISE
#define STEP }; d_step {
#else
#define STEP ;
#endif

#ifdef BATCH
bit begun;
#endif

/* An edge has one order, or its half of a batch. */
proctype edge(byte o) {
#ifdef BATCH
  if
  :: d_step { o == 0 && redis.loaded && redis.available >= UNITS(0) + UNITS(1) -> reserve_lua(0); reserve_lua(1); begun = 1 }
  :: o == 1 && begun
  fi;
#else
  if
  :: d_step { redis.loaded && redis.available >= UNITS(o) -> reserve_lua(o) }
  :: redis.loaded && redis.available < UNITS(o) -> goto end  /* 409 sold_out */
  fi;
#endif
  if
  :: d_step { enqueue(o); accept(o) STEP acknowledge(o) }    /* 202 */
  :: d_step { enqueue(o); accept(o) }                        /* 202; dies before it clears the outbox */
  :: d_step { enqueue(o) STEP unknown(o) }                   /* the answer is lost: 503 outcome_unknown */
  :: d_step { true STEP unknown(o) }                         /* so is the message; or the edge dies before it sends */
  :: d_step { true STEP cancel_lua(o) }                      /* refused: 503 queue_unavailable, if the script agrees */
  fi;
end:
  false
}

/* The relay claims an entry of any age, as its edge may have stalled for any time. A claim is taken over likewise. */
proctype relay() {
#ifdef BATCH
  bit first, second;
#define SEND_FIRST queue[0] = queue[0] || first
#define SEND_SECOND queue[1] = queue[1] || second
#define REST_RELAY first = 0; second = 0
end_idle:
  atomic {
    redis.outbox[0] ->
    if
    :: !redis.reserved[0] && !redis.reserved[1] -> remove(0); goto end_idle
    :: else
    fi;
    redis.claimed[0] = 1;
    first = redis.reserved[0];
    second = redis.reserved[1]
  }
  if
  :: d_step { SEND_FIRST; SEND_SECOND STEP remove(0); REST_RELAY }
  :: d_step { SEND_FIRST; SEND_SECOND; REST_RELAY }          /* the answer is lost, or the relay dies */
  :: d_step { SEND_FIRST; REST_RELAY }                       /* so is a part of the messages */
  :: d_step { SEND_SECOND; REST_RELAY }
  :: d_step { true -> REST_RELAY }                           /* so are all */
  fi;
  goto end_idle
#else
  byte o;
end_idle:
  atomic {
    if
    :: redis.outbox[0] -> o = 0
    :: redis.outbox[1] -> o = 1
    fi;
    if
    :: !redis.reserved[o] -> remove(o); o = 0; goto end_idle /* settled, or cancelled by an edge that died */
    :: else
    fi;
    redis.claimed[o] = 1
  }
  if
  :: d_step { enqueue(o) STEP remove(o); o = 0 }
  :: d_step { enqueue(o); o = 0 }                            /* the answer is lost, or the relay dies */
  :: o = 0                                                   /* so is the message */
  fi;
  goto end_idle
#endif
}

/* Workers are alike, so the first idle one may as well be the one that receives. */
proctype worker(byte w) {
  byte o, version;
  bit fresh;
#ifdef NO_LOCK
  byte stock;
#endif
end_idle:
  atomic {
    (queue[0] || queue[1]) && (w == 0 || working[0]) ->
    working[w] = 1;
    if
    :: queue[0] -> o = 0
    :: queue[1] -> o = 1
    fi;
#ifdef DELETE_BEFORE_COMMIT
    queue[o] = 0;
    if
    :: true
    :: d_step { true -> rest(o) }; goto end_idle             /* it dies */
    fi;
#endif
#ifdef NO_LOCK
    stock = mysql.stock;
#endif
#if defined(STEPWISE) || defined(NO_LOCK)
  }
  atomic {
#endif
    if
    :: d_step { DECIDABLE(o) && ENOUGH(o) -> complete(o) }
    :: d_step { DECIDABLE(o) -> fail(o) }                    /* sold out, or for another reason */
    /* Decided before, maybe by a worker that died, or by this one if the answer of its commit was lost: not fresh. */
    :: d_step { mysql.row[o] != NONE STEP settle_lua(o, 0, 0) STEP queue[o] = 0; rest(o) }; goto end_idle
    :: d_step { mysql.row[o] != NONE STEP settle_lua(o, 0, 0); rest(o) }; goto end_idle
    fi
  }
settling:
  if
  :: d_step { settle_lua(o, version, fresh) STEP queue[o] = 0; rest(o) }; goto end_idle
  :: d_step { settle_lua(o, version, fresh); rest(o) }; goto end_idle    /* dies, or the message cannot be deleted */
  :: d_step { settle_lua(o, version, fresh); fresh = AGAIN }; goto settling  /* the answer is lost */
  :: d_step { fresh -> abandon(o); fresh = AGAIN }; goto settling            /* not carried out, which nobody knows */
  :: d_step { crashes > 0 -> CRASH; abandon(o); rest(o) }; goto end_idle
  fi
}

/* Each edge loads the product when a request finds that it is not loaded: it gets the epoch (HSETNX, HGET), reads the
 * row, stalls for as long as it likes, and loads. A loss between the first two does what one after both does. */
proctype loader(byte l) {
  byte epoch, stock, version;
end_idle:
  atomic {
    !redis.loaded && (l == 0 || loading[0]) ->
    loading[l] = 1;
#ifndef EPOCH_AFTER_READ
    get_epoch();
#endif
    stock = mysql.stock;
    version = mysql.version
  }
#ifdef EPOCH_AFTER_READ
  atomic { true -> get_epoch() }
#endif
  d_step {
    true -> load_lua();                                      /* if it was stale, the loader begins anew */
    epoch = 0; stock = 0; version = 0; loading[l] = 0
  }
  goto end_idle
}

/* The operator repeats the restock, as a whole, until it has an answer. */
proctype operator() {
again:
  atomic {
    mysql.stock = mysql.stock + RESTOCK;
    mysql.version++;
    mysql.restock = mysql.version;
    check_mysql()
  }
restocking:                                                  /* from here on MySQL knows its id */
  if
  :: d_step { restock_lua(mysql.restock) }
  :: d_step { restock_lua(mysql.restock) }; goto AGAIN_RESTOCK  /* the answer is lost */
  fi;
end:
  false
}

/* Reconcile settles a reservation whose order has a row, at any time. */
proctype reconcile() {
end_idle:
  do
  :: d_step { redis.reserved[0] && mysql.row[0] != NONE -> settle_lua(0, 0, 0) }
  :: d_step { redis.reserved[1] && mysql.row[1] != NONE -> settle_lua(1, 0, 0) }
  od
}

proctype fate() {
end_idle:
  do
  :: d_step {
      losses > 0 -> losses--;
      redis.loaded = 0; redis.available = 0; redis.version = 0; redis.seen = 0; redis.epoch = 0; redis.restocked = 0;
      redis.reserved[0] = 0; redis.outbox[0] = 0; redis.claimed[0] = 0; redis.settled[0] = 0; moved[0] = 0;
      redis.reserved[1] = 0; redis.outbox[1] = 0; redis.claimed[1] = 0; redis.settled[1] = 0; moved[1] = 0
    }
  od
}

/* The system is quiet when nobody has anything left to do. */
proctype audit() {
end_idle:
  atomic {
    timeout ->
    P2_accepted_order_lost = answer[0] == ACCEPTED || answer[1] == ACCEPTED;
    assert(!P2_accepted_order_lost);
    P5_leaked = redis.reserved[0] || redis.reserved[1] || redis.outbox[0] || redis.outbox[1];
    assert(!P5_leaked);
    P4_redis_differs_from_mysql = redis.available != mysql.stock + DRIFT;
    assert(!P4_redis_differs_from_mysql);
    assert(redis.loaded)
  }
}

init {
  atomic {
    run audit();
    run edge(0); run edge(1);
#if RESTOCK
    run operator();
#endif
    run relay(); run reconcile(); run loader(0); run loader(1); run worker(0); run worker(1); run fate()
  }
}
