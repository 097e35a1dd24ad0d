/*
 * Units that come back to Redis, as in docs/design.md, for a model checker: two orders of one buyer, of one unit each,
 * are reserved, decided, settled, and paid or cancelled; what is cancelled comes back by a reminder in MySQL and a script.
 * Meanwhile workers die, and Redis loses everything and is loaded anew, as often as they like. payments.pml has what comes
 * before a payment or a cancelling, order.pml the faults of edges and of the queue. README.md says how to read and run it.
 *
 * One atomic step is one script or one transaction. Between two steps anybody may stall for as long as it likes.
 */

#ifndef STOCK
#define STOCK 2
#endif
#ifndef LOSSES
#define LOSSES 255       /* how often Redis loses everything; 255: without a bound */
#endif
#ifndef LOADERS
#define LOADERS 1        /* edges that load; order.pml has what two of them can do to each other */
#endif
#define ORDERS 2

/* ---- What is stored, and where -------------------------------------------------------------------------------- */

mtype = { NONE, AWAITING, COMPLETED, CANCELLED, FAILED };    /* the row of an order in MySQL */

typedef Redis {
  bit loaded;            /* stock:{p} exists */
  short available;       /* stock:{p} */
  byte version;          /* sale:{p}: the version of the row that was loaded, or that available was corrected to, */
  byte born;             /*   the version of the row that was loaded, with which the counts of buyers began, */
  byte seen;             /*   and the newest version that a script has shown */
  short bought;          /* bought:{p} of the buyer; 0: there is no field */
  bit reserved[ORDERS];
  bit settled[ORDERS];   /* settled:{p}: the tombstones */
  bit returned[ORDERS]   /* settled:{p}: return:<id> */
};

typedef Mysql {
  byte stock = STOCK;
  byte version;
  mtype row[ORDERS] = NONE;
  byte taken[ORDERS];    /* the ledger: the version that took the order's units; 0: none has */
  byte returned[ORDERS]; /*   and the one that returned them. Until returned_at is set, that is a reminder */
  bit returned_at[ORDERS]
};

Redis redis;
Mysql mysql;
bit queue[ORDERS];       /* at least one message is on the queue, or in the hands of a worker that may yet die */

/* ---- What only the checker knows ------------------------------------------------------------------------------ */

/* From some moment on it is calm: nothing happens any more that need not happen, as in payments.pml. */
bit calm;
#define MAY !calm

byte losses = LOSSES;                      /* still to come */
bit working[2], loading[2];
bit epoch_gone[2];                         /* Redis has lost its data since this loader got the epoch */
bit moved[ORDERS];                         /* a settle has had its effect, since Redis last lost its data */
bit orphan[ORDERS];                        /* its decider died after the commit: nobody will settle it as fresh */

bit P1_oversold, P3_settled_twice, P4_stock_does_not_add_up, P4_available_is_too_high, P5_leaked,
  P7_count_is_too_high, P7_count_is_too_low, P10_reminder_left, P10_units_did_not_come_back;

#define HOLDS(o) (mysql.row[o] == AWAITING || mysql.row[o] == COMPLETED)

/* What is left to reconcile, exactly, as in order.pml: a reservation that Redis has lost, of an order that was decided
 * after the load, and that nobody will settle as fresh. Neither its units nor its buyer are counted in Redis. A return
 * neither adds to that nor hides it: it gives back what was never taken. */
#ifdef EXCUSE_NOTHING
#define UNSETTLED(o) 0
#else
#define UNSETTLED(o) (orphan[o] && !moved[o])
#endif
#define DRIFT(o) (UNSETTLED(o) && mysql.taken[o] > redis.version)
#define COUNTS(o) ((HOLDS(o) && mysql.taken[o] > redis.born) - (UNSETTLED(o) && mysql.taken[o] > redis.born))

inline check_mysql() {
  P1_oversold = HOLDS(0) + HOLDS(1) > STOCK;
  assert(!P1_oversold);
  P4_stock_does_not_add_up = mysql.stock + HOLDS(0) + HOLDS(1) != STOCK;
  assert(!P4_stock_does_not_add_up)
}

/* ---- The scripts ---------------------------------------------------------------------------------------------- */

inline raise_seen(shown) {
  redis.seen = (shown > redis.seen -> shown : redis.seen)
}

inline reserve_lua(o) {
  redis.available--;
  redis.bought++;
  redis.reserved[o] = 1
}

inline has_effect(o) {
  P3_settled_twice = moved[o];
  assert(!P3_settled_twice);
  moved[o] = 1
}

#ifdef CANCELLED_IS_FAILED
#define GIVES_BACK(o) (mysql.row[o] == FAILED || mysql.row[o] == CANCELLED)
#else
#define GIVES_BACK(o) (mysql.row[o] == FAILED)
#endif
#ifdef COUNT_WITH_UNITS
#define COUNTED_SINCE redis.version
#else
#define COUNTED_SINCE redis.born
#endif

/* A settle by the decider is fresh and has the version of its commit; one by anybody else has neither. */
inline settle_lua(o, is_fresh) {
  if
  :: is_fresh -> raise_seen(mysql.taken[o])
  :: else
  fi;
  if
  :: redis.reserved[o] ->
    has_effect(o);
    redis.reserved[o] = 0;
    redis.available = redis.available + GIVES_BACK(o);
    redis.bought = redis.bought - GIVES_BACK(o);
#ifndef NO_TOMB
    redis.settled[o] = !is_fresh && mysql.row[o] != FAILED
#endif
  :: !redis.reserved[o] && is_fresh && redis.loaded && !redis.settled[o] ->
    has_effect(o);
    redis.available = redis.available - (mysql.taken[o] > redis.version);
    redis.bought = redis.bought + (mysql.taken[o] > COUNTED_SINCE)
  :: else
  fi
}

#ifdef NO_ID
#define KNOWN(o) false
#else
#define KNOWN(o) redis.returned[o]
#endif
#ifdef NO_VERSION
#define CAME_BACK_SINCE_LOAD(o) true
#else
#define CAME_BACK_SINCE_LOAD(o) (mysql.returned[o] > redis.version)
#endif
#if defined(COUNT_ALWAYS)
#define WAS_COUNTED(o) true
#elif defined(COUNT_BY_VERSION)
#define WAS_COUNTED(o) (mysql.taken[o] > redis.version)
#elif defined(COUNT_BY_RETURN)
#define WAS_COUNTED(o) (mysql.returned[o] > redis.born)
#else
#define WAS_COUNTED(o) (mysql.taken[o] > redis.born)
#endif

inline return_lua(o) {
#ifndef NO_SEEN
  raise_seen(mysql.returned[o]);
#endif
  if
  :: redis.loaded && !KNOWN(o) ->
    redis.returned[o] = 1;
    redis.available = redis.available + CAME_BACK_SINCE_LOAD(o);
    redis.bought = redis.bought - WAS_COUNTED(o);
#ifdef CLAMP
    redis.bought = (redis.bought < 0 -> 0 : redis.bought)    /* the field goes at 0 and below */
#endif
  :: else
  fi
}

#ifdef NO_EPOCH
#define IN_EPOCH true
#else
#define IN_EPOCH !epoch_gone[l]
#endif
#ifdef LOAD_IGNORES_SEEN
#define NEW_ENOUGH true
#else
#define NEW_ENOUGH (version >= redis.seen)
#endif

inline load_lua() {
  if
  :: !redis.loaded && NEW_ENOUGH && IN_EPOCH ->
    redis.loaded = 1;
    redis.available = stock;
    redis.version = version;
    redis.born = version;
    redis.seen = version
  :: else
  fi
}

/* The look that a correction rests on has seen every change, as each script counts its own. */
inline correct_lua() {
  redis.available = mysql.stock;
  redis.version = mysql.version;
#ifdef CORRECT_MOVES_BORN
  redis.born = mysql.version;
#endif
  raise_seen(mysql.version)
}

/* ---- Who does what -------------------------------------------------------------------------------------------- */

proctype edge(byte o) {
end_start:
  d_step { MAY && redis.loaded && redis.available > 0 -> reserve_lua(o); queue[o] = 1 }
end:
  false
}

/* What payments.pml comes to: the order is paid, or it is cancelled and MySQL has its units again. */
proctype payment(byte o) {
end_idle:
  if
  :: d_step { MAY && mysql.row[o] == AWAITING -> mysql.row[o] = COMPLETED; check_mysql() }
  :: d_step {
      mysql.row[o] == AWAITING ->
      mysql.stock++;
      mysql.version++;
      mysql.returned[o] = mysql.version;
      mysql.row[o] = CANCELLED;
      check_mysql()
    }
#ifdef NO_REMINDER
    if
    :: d_step { true -> return_lua(o); mysql.returned_at[o] = 1 }
    :: d_step { MAY -> mysql.returned_at[o] = 1 }            /* it dies */
    fi
#endif
  fi;
end:
  false
}

/* Workers are alike, so the first idle one may as well be the one that takes up what is to be done. */
#define IDLE (w == 0 || working[0])
#ifdef NO_REMINDER
#define REMINDS(o) false
#else
#define REMINDS(o) (mysql.returned[o] != 0 && !mysql.returned_at[o])
#endif

/* A worker has nothing in hand any more, be it done or dead. */
inline rest() {
  o = 0; working[w] = 0
}

inline await(o) {
  mysql.stock--;
  mysql.version++;
  mysql.taken[o] = mysql.version;
  mysql.row[o] = AWAITING;
  check_mysql()
}

proctype worker(byte w) {
  byte o;
end_idle:
  atomic {
    IDLE && (queue[0] || queue[1] || REMINDS(0) || REMINDS(1)) ->
    working[w] = 1;
    if
    :: queue[0] -> o = 0
    :: queue[1] -> o = 1
    :: REMINDS(0) -> o = 0; goto returning
    :: REMINDS(1) -> o = 1; goto returning
    fi;
    if
    :: d_step { mysql.row[o] == NONE && mysql.stock > 0 -> await(o) }
    :: d_step { mysql.row[o] == NONE && (MAY || mysql.stock == 0) -> mysql.row[o] = FAILED }    /* for any reason */
    /* It has been decided before, by a worker that died, or whose message came twice. */
    :: d_step { mysql.row[o] != NONE -> settle_lua(o, 0); queue[o] = 0; rest() }; goto end_idle
    fi
  }
  if
  :: d_step { true -> settle_lua(o, mysql.row[o] != FAILED); queue[o] = 0; rest() }
  :: d_step { MAY -> settle_lua(o, mysql.row[o] != FAILED); rest() }   /* it dies, and the message comes again */
  :: d_step { MAY -> orphan[o] = mysql.row[o] != FAILED; rest() }      /* so it does before the settle */
  fi;
  goto end_idle;

returning:
#ifdef MARK_FIRST
  mysql.returned_at[o] = 1;
  if
  :: d_step { true -> return_lua(o); rest() }
  :: d_step { MAY -> rest() }                                /* it dies */
  fi;
#else
  if
  :: d_step { true -> return_lua(o) }
  :: d_step { MAY -> rest() }; goto end_idle                 /* it dies, or the call is lost */
  fi;
  if
  :: d_step { true -> mysql.returned_at[o] = 1; rest() }
  :: d_step { MAY -> rest() }                                /* it dies, or the answer is lost */
  fi;
#endif
  goto end_idle
}

/* An edge loads the product when a request finds that it is not loaded: it gets the epoch and reads the row in one step
 * (order.pml has the order of the two), stalls for as long as it likes, and loads. */
proctype loader(byte l) {
  byte stock, version;
end_idle:
  atomic {
    !redis.loaded && (l == 0 || loading[0]) ->
    loading[l] = 1;
    epoch_gone[l] = 0;
    stock = mysql.stock;
    version = mysql.version
  }
  d_step {
    true -> load_lua();
    epoch_gone[l] = 0; stock = 0; version = 0; loading[l] = 0
  }
  goto end_idle
}

/* Settles a reservation whose order has a row, at any time, and corrects what differs. */
proctype reconcile() {
end_idle:
  do
  :: d_step { redis.reserved[0] && mysql.row[0] != NONE -> settle_lua(0, 0) }
  :: d_step { redis.reserved[1] && mysql.row[1] != NONE -> settle_lua(1, 0) }
#ifndef NO_CORRECTIONS
  :: d_step { MAY && redis.loaded && !redis.reserved[0] && !redis.reserved[1] -> correct_lua() }
#endif
  od
}

proctype fate() {
end_idle:
  do
  :: d_step { MAY -> calm = 1 }
#if LOSSES
  :: d_step {
      MAY && losses > 0 ->
      losses = (losses == 255 -> 255 : losses - 1);
      redis.loaded = 0; redis.available = 0; redis.version = 0; redis.born = 0; redis.seen = 0; redis.bought = 0;
      redis.reserved[0] = 0; redis.settled[0] = 0; redis.returned[0] = 0; moved[0] = 0;
      redis.reserved[1] = 0; redis.settled[1] = 0; redis.returned[1] = 0; moved[1] = 0;
      epoch_gone[0] = loading[0];
      epoch_gone[1] = loading[1]
    }
#endif
  od
}

/* It is quiet when it is calm and nobody has anything left to do. */
proctype audit() {
end_idle:
  atomic {
    timeout ->
    P5_leaked = redis.reserved[0] || redis.reserved[1] || queue[0] || queue[1] || !redis.loaded;
    assert(!P5_leaked);
    P10_reminder_left = REMINDS(0) || REMINDS(1) || mysql.row[0] == AWAITING || mysql.row[1] == AWAITING;
    assert(!P10_reminder_left);
    P10_units_did_not_come_back = redis.available < mysql.stock + DRIFT(0) + DRIFT(1);
    assert(!P10_units_did_not_come_back);
    P4_available_is_too_high = redis.available > mysql.stock + DRIFT(0) + DRIFT(1);
    assert(!P4_available_is_too_high);
    P7_count_is_too_high = redis.bought > COUNTS(0) + COUNTS(1);
    assert(!P7_count_is_too_high);
    P7_count_is_too_low = redis.bought < COUNTS(0) + COUNTS(1);
    assert(!P7_count_is_too_low);
    assert(calm)
  }
}

init {
  atomic {
    run audit();
    run edge(0); run edge(1); run payment(0); run payment(1); run reconcile(); run loader(0);
#if LOADERS > 1
    run loader(1);
#endif
    run worker(0); run worker(1); run fate()
  }
}

/* Once it is calm, nothing goes on for ever: else it would never be quiet, which breaks P10 too. */
never {
  do
  :: calm -> break
  :: true
  od;
accept:
  do
  :: true
  od
}
