/*
 * An order that waits for its payment, as in docs/design.md, for a model checker: it holds the only unit, two attempts
 * at a provider and the buyer's points can pay for it, and somebody else would like to have the unit. Shop, provider,
 * two workers, an operator and buyers act in any order. README.md says how to read and run it, and what it leaves out.
 *
 * One atomic step is one transaction or one call to the provider. Between two steps anybody may stall for as long as it
 * likes, and die; calls may come late or not at all, and answers get lost. None of that has a budget.
 *
 * By default the provider has an interface to create, close and refund. With -DFORM the buyer's browser creates the
 * payment with a form that it got, when it likes; nothing can be closed, but lapses some time after pay_by; and refunds are
 * made by hand, as for an ATM or a convenience store.
 */

#define ATTEMPTS 2
#define POINTS 2         /* paid_by: attempt 0, attempt 1, */
#define NOBODY 3

/* ---- What is stored, and where -------------------------------------------------------------------------------- */

mtype = { AWAITING, CLOSING, COMPLETED, CANCELLED };   /* the order */
mtype = { ABSENT, CREATED, OPEN, PAID, CLOSED };       /* an attempt, as MySQL has it; the provider has no CREATED */
mtype = { DUE, MANUAL, DONE };                         /* a refund, or ABSENT. Its key is the attempt */

typedef Mysql {
  mtype order = AWAITING;
  byte paid_by = NOBODY;
  mtype attempt[ATTEMPTS] = ABSENT;
  bit issued[ATTEMPTS];  /* payment_events, kind "number issued", */
  bit paid[ATTEMPTS];    /*   and kind "paid" */
  mtype refund[ATTEMPTS] = ABSENT;
  bit leased[ATTEMPTS];  /* the lease of a refund. It outlives the calls that are made under it */
  bit returned;          /* the order's row `return` in the ledger */
  byte stock;
  byte others;           /* units of other buyers' completed orders */
  byte points = 1        /* the buyer's wallet: enough for the order */
};

typedef Provider {
  mtype payment[ATTEMPTS] = ABSENT;
  bit refunded[ATTEMPTS];/* with the attempt's id as the key */
  byte back[ATTEMPTS]    /* how often money went back, by the provider's interface or by hand */
};

Mysql mysql;
Provider provider;
bit create[ATTEMPTS];    /* a call to create is on its way; FORM: the browser has the form */
bit due;                 /* pay_by has passed */

/* ---- What only the checker knows ------------------------------------------------------------------------------ */

/* From some moment on it is calm: nothing happens any more that need not happen. Then everything must come to rest, and the
 * audit looks at what is left. What stands behind MAY need not happen: faults, and what people do of their own will. */
bit calm;
#define MAY !calm

bit working[2];
byte on_the_way;         /* CANCEL_SPLIT: units of a cancelled order whose worker has yet to return them */

/* Broken promises: each is set and asserted where it can come about. */
bit P1_oversold, P3_final_order_turned, P3_paid_attempt_turned, P4_units_do_not_add_up, P9_completed_unpaid,
  P9_completed_and_refunded, P9_refunded_unpaid, P9_refunded_twice, P9_money_kept, P10_returned_twice,
  P10_paid_order_cancelled, P10_stuck, P12_completed_without_points, P12_points_gone;

#define FINAL (mysql.order == COMPLETED || mysql.order == CANCELLED)
#define HELD (mysql.order != CANCELLED)

#define UNITS (mysql.stock + mysql.others + HELD + on_the_way)

/* There is one unit: it is for sale, held or sold. */
inline check_units() {
  P1_oversold = UNITS > 1;
  assert(!P1_oversold);
  P4_units_do_not_add_up = UNITS < 1;
  assert(!P4_units_do_not_add_up)
}

/* Who pays in time gets the goods: a cancelled order is never a paid one, at no time and at no provider. */
inline check_cancelled() {
#ifndef EXCUSE_LATE_MONEY
  P10_paid_order_cancelled = mysql.order == CANCELLED && (provider.payment[0] == PAID || provider.payment[1] == PAID);
  assert(!P10_paid_order_cancelled)
#else
  skip
#endif
}

/* ---- The provider --------------------------------------------------------------------------------------------- */

inline create_at_provider(k) {
  provider.payment[k] = (provider.payment[k] == ABSENT -> OPEN : provider.payment[k])
}

/* Its answer is the state in which it leaves the payment; ABSENT is "not found". */
inline close_at_provider(k) {
  provider.payment[k] = (provider.payment[k] == OPEN -> CLOSED : provider.payment[k]);
  answer = provider.payment[k]
}

inline money_back(k) {
  provider.back[k]++;
  P9_refunded_twice = provider.back[k] > 1;
  assert(!P9_refunded_twice);
  P9_refunded_unpaid = provider.payment[k] != PAID;
  assert(!P9_refunded_unpaid)
}

#ifdef REFUND_WITHOUT_ID
#define REPEATED(k) false
#else
#define REPEATED(k) provider.refunded[k]
#endif

inline refund_at_provider(k) {
  if
  :: REPEATED(k)
  :: else -> provider.refunded[k] = 1; money_back(k)
  fi
}

/* ---- The transactions ----------------------------------------------------------------------------------------- */

inline complete(by) {
  P9_completed_unpaid = by < POINTS && provider.payment[by % ATTEMPTS] != PAID;
  assert(!P9_completed_unpaid);
  P12_completed_without_points = by == POINTS && mysql.points > 0;
  assert(!P12_completed_without_points);
  P3_final_order_turned = FINAL;
  mysql.order = COMPLETED;
  mysql.paid_by = by;
  check_units();
  assert(!P3_final_order_turned)
}

/* What a payment does depends on the order: which one is a parameter, as a mutant reads it too early. */
#if defined(CLOSING_IS_LATE)
#define PAYABLE(status) (status == AWAITING)
#elif defined(LATE_MONEY_COMPLETES)
#define PAYABLE(status) (status != COMPLETED)
#else
#define PAYABLE(status) (status == AWAITING || status == CLOSING)
#endif

inline paid_effect(k, status) {
  mysql.attempt[k] = PAID;
  if
  :: PAYABLE(status) -> complete(k)
  :: else ->
    P9_completed_and_refunded = mysql.paid_by == k;
    assert(!P9_completed_and_refunded);
#ifndef IGNORE_LATE_MONEY
    mysql.refund[k] = (mysql.refund[k] == ABSENT -> DUE : mysql.refund[k])
#endif
  fi
}

#if defined(NO_EVENT)
#define DUPLICATE(k) false
#elif defined(EVENT_WITHOUT_KIND)
#define DUPLICATE(k) (mysql.paid[k] || mysql.issued[k])
#else
#define DUPLICATE(k) mysql.paid[k]
#endif

/* recordPaid: the one function behind callback, return page, query and close. */
inline record_paid(k) {
  if
  :: DUPLICATE(k)
  :: else -> mysql.paid[k] = 1; paid_effect(k, mysql.order)
  fi
}

#ifdef OPEN_FROM_ANY
#define OPENS(k) true
#else
#define OPENS(k) (mysql.attempt[k] == CREATED)
#endif

inline mark_open(k) {
  P3_paid_attempt_turned = OPENS(k) && mysql.attempt[k] == PAID;
  assert(!P3_paid_attempt_turned);
  mysql.attempt[k] = (OPENS(k) -> OPEN : mysql.attempt[k])
}

#define UNFINISHED(k) (mysql.attempt[k] == CREATED || mysql.attempt[k] == OPEN)

inline mark_closed(k) {
  mysql.attempt[k] = (UNFINISHED(k) -> CLOSED : mysql.attempt[k])
}

inline cancel_and_return() {
  P10_returned_twice = mysql.returned;
  assert(!P10_returned_twice);
  P3_final_order_turned = FINAL;
  assert(!P3_final_order_turned);
  mysql.order = CANCELLED;
  mysql.returned = 1;
#ifdef CANCEL_SPLIT
  on_the_way = 1;
#else
  mysql.stock++;
#endif
  check_units();
  check_cancelled()
}

inline begin_closing() {
#ifdef GIVE_BACK_EARLY
  cancel_and_return()
#else
  P3_final_order_turned = FINAL;
  assert(!P3_final_order_turned);
  mysql.order = CLOSING
#endif
}

#define OVER(k) (mysql.attempt[k] == ABSENT || mysql.attempt[k] == CLOSED)
#ifdef CANCEL_AFTER_ONE
#define ALL_CLOSED (OVER(0) || OVER(1))
#else
#define ALL_CLOSED (OVER(0) && OVER(1))
#endif

/* Three looks of one transaction. Any one of the first two is enough: the variants leave out each alone, and both. */
#ifdef NO_STATUS
#define STATUS_ALLOWS true
#else
#define STATUS_ALLOWS (mysql.order == CLOSING)
#endif
#ifdef NO_LEDGER
#define LEDGER_ALLOWS true
#else
#define LEDGER_ALLOWS !mysql.returned
#endif
#ifdef NO_SECOND_LOOK
#define ATTEMPTS_ALLOW true
#else
#define ATTEMPTS_ALLOW ALL_CLOSED
#endif
#define MAY_CANCEL (STATUS_ALLOWS && LEDGER_ALLOWS && ATTEMPTS_ALLOW)

/* ---- Who does what -------------------------------------------------------------------------------------------- */

#ifdef START_WHILE_CLOSING
#define STARTABLE (mysql.order == AWAITING || mysql.order == CLOSING)
#else
#define STARTABLE (mysql.order == AWAITING)
#endif
/* Attempts are alike, so the first one may as well be the one that is started first. */
#define MAY_START(k) (MAY && STARTABLE && (k == 0 || mysql.attempt[0] != ABSENT || create[0] || provider.payment[0] != ABSENT))

/* The shop starts an attempt: the row, the call, and the mark when the call is answered. */
proctype shop(byte k) {
#ifdef CALL_FIRST
end_start:
  d_step { MAY_START(k) -> create[k] = 1 }
  if
  :: d_step { STARTABLE -> mysql.attempt[k] = OPEN }
  :: d_step { !STARTABLE -> skip }
  :: MAY                                                     /* it dies */
  fi;
#else
#ifdef START_LOOKS_FIRST
end_start:
  MAY_START(k);
  d_step { true -> mysql.attempt[k] = CREATED }
#else
end_start:
  d_step { MAY_START(k) -> mysql.attempt[k] = CREATED }
#endif
  if
  :: create[k] = 1
  :: MAY -> goto end                                         /* it dies */
  fi;
  if
#ifndef FORM
  :: provider.payment[k] == ABSENT && !create[k] -> goto end /* the call got lost */
  :: provider.payment[k] != ABSENT                           /* answered */
#else
  :: true
#endif
  :: MAY -> goto end                                         /* no answer in time, or it dies */
  fi;
  if
  :: d_step { true -> mark_open(k) }
  :: MAY                                                     /* it dies */
  fi;
#endif
end:
  false
}

/* The provider, on its own and with the buyer, who may be there at any time. */
proctype provider_of(byte k) {
end_idle:
  do
#ifdef FORM
  :: d_step { MAY && create[k] -> create[k] = 0; create_at_provider(k) }
#else
  :: d_step { create[k] -> create[k] = 0; create_at_provider(k) }
#endif
  :: d_step { MAY && create[k] -> create[k] = 0 }            /* lost */
  :: d_step { MAY && provider.payment[k] == OPEN -> provider.payment[k] = PAID; check_cancelled() }
  :: d_step { MAY && provider.payment[k] == OPEN -> provider.payment[k] = CLOSED }
                                                             /* of its own accord; also a close that comes late */
#if defined(FORM) && !defined(NO_EXPIRY)
  /* It lapses, also if it has never been created: a form that comes later is refused. */
  :: d_step {
      due && mysql.attempt[k] != ABSENT && (provider.payment[k] == ABSENT || provider.payment[k] == OPEN) ->
      provider.payment[k] = CLOSED
    }
#endif
  od
}

#ifdef FORGED
#define GENUINE(k) true
#else
#define GENUINE(k) (provider.payment[k] == PAID)
#endif

/* Callbacks and return pages: any number of them, at any time, or none. */
proctype callback(byte k) {
#ifdef RECORD_LOOKS_FIRST
  mtype order;
#endif
end_idle:
  do
#if defined(EVENT_SPLIT)
  :: d_step { MAY && GENUINE(k) && mysql.attempt[k] != ABSENT && !mysql.paid[k] -> mysql.paid[k] = 1 }
    if
    :: d_step { true -> paid_effect(k, mysql.order) }
    :: MAY                                                   /* the shop dies */
    fi
#elif defined(RECORD_LOOKS_FIRST)
  :: d_step { MAY && GENUINE(k) && mysql.attempt[k] != ABSENT && !mysql.paid[k] -> order = mysql.order }
    d_step {
      if
      :: mysql.paid[k]
      :: else -> mysql.paid[k] = 1; paid_effect(k, order)
      fi;
      order = 0
    }
#else
  :: d_step { MAY && GENUINE(k) && mysql.attempt[k] != ABSENT -> record_paid(k) }
#endif
#ifdef FORM
  :: d_step {
      MAY && (provider.payment[k] == OPEN || provider.payment[k] == PAID) && mysql.attempt[k] != ABSENT ->
#ifdef ISSUED_IS_PAID
      record_paid(k);
#endif
      mysql.issued[k] = 1
    }
#endif
  od
}

/* Everybody else, each in one transaction or with one act. */
proctype people() {
end_idle:
  do
  :: d_step { !due -> due = 1 }                              /* a clock */
  :: d_step { MAY && mysql.stock > 0 -> mysql.stock--; mysql.others++; check_units() }
#ifndef MANUAL_BLIND
  /* The operator looks at the provider before he pays back by hand. */
  :: d_step { mysql.refund[0] == MANUAL && provider.refunded[0] -> mysql.refund[0] = DONE }
  :: d_step { mysql.refund[1] == MANUAL && provider.refunded[1] -> mysql.refund[1] = DONE }
  :: d_step { mysql.refund[0] == MANUAL && !provider.refunded[0] -> money_back(0); mysql.refund[0] = DONE }
  :: d_step { mysql.refund[1] == MANUAL && !provider.refunded[1] -> money_back(1); mysql.refund[1] = DONE }
#else
  :: d_step { mysql.refund[0] == MANUAL -> money_back(0); mysql.refund[0] = DONE }
  :: d_step { mysql.refund[1] == MANUAL -> money_back(1); mysql.refund[1] = DONE }
#endif
  od
}

/* Ends the wait for a payment, as pay_by has passed or as the buyer cancels. */
proctype expiry() {
end_idle:
  do
#ifdef EXPIRE_LOOKS_FIRST
  :: mysql.order == AWAITING && due ->
    d_step { true -> begin_closing() }
#else
  :: d_step { mysql.order == AWAITING && due -> begin_closing() }
  :: d_step { MAY && mysql.order == AWAITING -> begin_closing() }
#endif
  od
}

proctype pay_with_points() {
end_start:
#if defined(POINTS_SPLIT)
  d_step { MAY && mysql.order == AWAITING -> mysql.points-- }
  if
  :: d_step { mysql.order == AWAITING -> complete(POINTS) }
  :: mysql.order != AWAITING
  :: MAY                                                     /* the shop dies */
  fi;
#elif defined(POINTS_AFTER)
  d_step { MAY && mysql.order == AWAITING -> complete(POINTS) }
  mysql.points--;
#elif defined(POINTS_LOOK_FIRST)
  MAY && mysql.order == AWAITING;
  d_step { true -> mysql.points--; complete(POINTS) }
#else
  d_step { MAY && mysql.order == AWAITING -> mysql.points--; complete(POINTS) }
#endif
end:
  false
}

#if defined(SWEEP_CLOSING_ONLY)
#define TO_SWEEP(k) (UNFINISHED(k) && mysql.order == CLOSING)
#elif defined(SWEEP_OPEN_ONLY)
#define TO_SWEEP(k) (mysql.attempt[k] == OPEN && mysql.order != AWAITING)
#else
#define TO_SWEEP(k) (UNFINISHED(k) && mysql.order != AWAITING)
#endif
#ifdef NO_LEASE
#define TO_REFUND(k) (mysql.refund[k] == DUE)
#else
#define TO_REFUND(k) (mysql.refund[k] == DUE && !mysql.leased[k])
#endif

#ifdef FORM
/* A query: nothing is known before the payment is made, or the provider's own expiry has passed. */
inline ask_provider(k) {
  answer = provider.payment[k]
}
#ifdef QUERY_NOT_FOUND_IS_CLOSED
#define ANSWERS(k) (provider.payment[k] != OPEN)
#else
#define ANSWERS(k) (provider.payment[k] == PAID || provider.payment[k] == CLOSED)
#endif
#else
inline ask_provider(k) {
  close_at_provider(k)
}
#define ANSWERS(k) true
#endif

/* A worker has nothing in hand any more, be it done or dead. */
inline rest() {
  k = 0; answer = 0; working[w] = 0; on_the_way = 0;
  check_units()
}

inline end_lease() {
  mysql.leased[k] = 0;
  rest()
}

/* Workers are alike, so the first idle one may as well be the one that takes up what is to be done. */
#define IDLE (w == 0 || working[0])

proctype worker(byte w) {
  byte k;
  mtype answer;
end_idle:
  if
  :: d_step { IDLE && TO_SWEEP(0) && ANSWERS(0) -> working[w] = 1; k = 0 }; goto asking
  :: d_step { IDLE && TO_SWEEP(1) && ANSWERS(1) -> working[w] = 1; k = 1 }; goto asking
#ifdef FORM
  :: d_step { TO_REFUND(0) -> mysql.refund[0] = MANUAL }; goto end_idle
  :: d_step { TO_REFUND(1) -> mysql.refund[1] = MANUAL }; goto end_idle
#else
  :: d_step { IDLE && TO_REFUND(0) -> working[w] = 1; k = 0; mysql.leased[0] = 1 }; goto refunding
  :: d_step { IDLE && TO_REFUND(1) -> working[w] = 1; k = 1; mysql.leased[1] = 1 }; goto refunding
#endif
  :: d_step { IDLE && mysql.order == CLOSING && ALL_CLOSED -> working[w] = 1 }; goto cancelling
  fi;

asking:
  if
  :: d_step { true -> ask_provider(k) }
#ifdef UNKNOWN_IS_CLOSED
  :: d_step { MAY -> ask_provider(k); answer = CLOSED }
  :: d_step { MAY -> answer = CLOSED }
#else
  :: d_step { MAY -> ask_provider(k); rest() }; goto end_idle     /* the answer is lost, or it dies: later */
  :: d_step { MAY -> rest() }; goto end_idle                 /* so is the call */
#endif
  fi;
  if
#ifdef PAID_IS_CLOSED
  :: d_step { answer == PAID -> mark_closed(k); rest() }
#else
  :: d_step { answer == PAID -> record_paid(k); rest() }
#endif
#if defined(NOT_FOUND_IS_CLOSED) || defined(QUERY_NOT_FOUND_IS_CLOSED)
  :: d_step { answer == ABSENT -> mark_closed(k); rest() }
#elif defined(NOT_FOUND_IS_LATER)
  :: d_step { answer == ABSENT -> rest() }
#else
  /* A create that is still on its way would open it later: so it is created, under the same id, and closed next time. */
  :: d_step { answer == ABSENT -> create_at_provider(k); rest() }
#endif
  :: d_step { answer == CLOSED -> mark_closed(k); rest() }
  :: d_step { MAY -> rest() }                                /* it dies */
  fi;
  goto end_idle;

#ifndef FORM
refunding:
  if
  :: d_step { true -> refund_at_provider(k); answer = DONE }
  :: d_step { MAY -> answer = MANUAL }                       /* refused, maybe as it has been carried out before */
#ifdef REFUND_ONCE
  :: d_step { MAY -> answer = DONE }                         /* lost, which is taken for done */
#endif
  :: d_step { MAY -> refund_at_provider(k); end_lease() }; goto end_idle     /* the answer is lost, or it dies */
  :: d_step { MAY -> end_lease() }; goto end_idle            /* so is the call */
  fi;
  if
#ifdef REFUSED_IS_DONE
  :: d_step { true -> mysql.refund[k] = DONE; end_lease() }
#else
  :: d_step { true -> mysql.refund[k] = answer; end_lease() }
#endif
  :: d_step { MAY -> end_lease() }                           /* it dies */
  fi;
  goto end_idle;
#endif

cancelling:
  if
#ifdef CANCEL_SPLIT
  :: d_step { MAY_CANCEL -> cancel_and_return() }
    if
    :: d_step { true -> mysql.stock++; rest() }
    :: d_step { MAY -> rest() }                              /* it dies */
    fi
#else
  :: d_step { MAY_CANCEL -> cancel_and_return(); rest() }
#endif
  :: d_step { !MAY_CANCEL -> rest() }
  :: d_step { MAY -> rest() }                                /* it dies */
  fi;
  goto end_idle
}

proctype fate() {
end_idle:
  d_step { MAY -> calm = 1 }
end:
  false
}

#define MONEY_KEPT(k) (provider.payment[k] == PAID && mysql.paid_by != k && !(provider.back[k] == 1 && mysql.refund[k] == DONE))
#define LEFT(k) (UNFINISHED(k) || mysql.refund[k] == DUE || mysql.refund[k] == MANUAL)

/* It is quiet when it is calm and nobody has anything left to do. */
proctype audit() {
end_idle:
  atomic {
    timeout ->
    P9_money_kept = MONEY_KEPT(0) || MONEY_KEPT(1);
    assert(!P9_money_kept);
    P12_points_gone = (mysql.points == 0) != (mysql.paid_by == POINTS);
    assert(!P12_points_gone);
    P10_stuck = !FINAL || LEFT(0) || LEFT(1);
    assert(!P10_stuck);
    check_units();
    assert(calm)
  }
}

init {
  atomic {
    run audit();
    run shop(0); run shop(1); run provider_of(0); run provider_of(1); run callback(0); run callback(1); run people();
    run expiry(); run pay_with_points(); run worker(0); run worker(1); run fate()
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
