/*
 * The protocol of core/loop/mailbox.c between posters and the owner: post, sleep, wake, what exceeds a tick's budget,
 * close, and release. tests/checks/model.sh lets spin look at every interleaving of two posters with three messages
 * each, of which the first two of one are posted as a chain, and an owner that closes whenever it is awake.
 *
 * Proven: no wake-up is lost (an owner that waits for ever has an empty box); every message that was accepted is run or
 * discarded, once, also when the box closes meanwhile; what is run of one poster is run in order; a message is complete
 * when it is seen; nothing is touched after the last release.
 *
 * Memory. A fence keeps two accesses of one thread in order; where it stands, the model makes them in this order, each
 * in one atomic step. Without it both orders are possible, and the model has both: that is what a store buffer (x86)
 * or a weakly ordered machine makes of a store and a load that follow each other.
 *
 * Each of these takes one thing away, and must make the proof fail:
 *   NO_RELEASE_FENCE  in push(): what the node says is there before the node
 *   NO_POST_FENCE     in state_after_publishing(): the push before the look at the state
 *   NO_SLEEP_FENCE    in tram__mailbox_sleep(): SLEEPING before the look into the box
 *   NO_RECHECK        in tram__mailbox_sleep(): the look into the box
 *   NO_CLOSE_FENCE    in tram__mailbox_close(): CLOSED before the box is emptied
 *   NO_SECOND_LOOK    in finish_post(): the look whether the box was closed
 *   NO_HOLD           a poster's reference
 *   NO_OPEN           in pop_inbox(): the messages to which the first of a chain leads
 */
#define POSTERS  2
#define MESSAGES 3
#define ALL      6
#define BUDGET   2 /* messages that one tick runs */

mtype = { RUNNING, NOTIFIED, SLEEPING, CLOSED };
mtype state = RUNNING;

#define UNSENT    0
#define REFUSED   1
#define PUSHED    2
#define RUN       3
#define DISCARDED 4
byte fate[ALL];     /* of message m: number m / POSTERS of poster m % POSTERS */
bool complete[ALL]; /* its content was written */
bool leads[ALL];    /* to the poster's next message: the two are a chain */

byte inbox[ALL], in_count; /* a stack: the newest on top */
byte taken[ALL], taken_first, taken_count;
byte next[POSTERS];        /* the first message of each poster that was not run yet */

bool wakeup; /* the eventfd is readable */
#ifdef NO_HOLD
byte references = 1;
#else
byte references = POSTERS + 1;
#endif
bool destroyed;
byte posters_done;

inline there() { assert(!destroyed) }

inline discard(message) {
    assert(fate[message] == PUSHED && complete[message]);
    fate[message] = DISCARDED
}

/* Empties the box and discards what was in it, poster or owner. */
inline discard_inbox() {
    d_step {
        there();
        do
        :: in_count > 0 ->
            in_count--;
            discard(inbox[in_count]);
#ifndef NO_OPEN
            if
            :: leads[inbox[in_count]] -> discard(inbox[in_count] + POSTERS)
            :: else
            fi;
#endif
            inbox[in_count] = 0
        :: else -> break
        od
    }
}

inline release() {
    d_step {
        there();
#ifdef NO_HOLD
        if
        :: _pid == 0 -> references--
        :: else
        fi;
#else
        references--;
#endif
        if
        :: references == 0 -> destroyed = true
        :: else
        fi
    }
}

/* A chain is two messages that one push publishes; the first of them lies in the box, and leads to the second. */
inline write_content(m) {
    complete[m] = true;
    if
    :: chain -> complete[m + POSTERS] = true
    :: else
    fi
}

inline publish(m) {
    there();
    fate[m] = PUSHED; inbox[in_count] = m; in_count++;
    if
    :: chain -> fate[m + POSTERS] = PUSHED; leads[m] = true
    :: else
    fi
}

inline look_at_state() { there(); seen = state }

proctype poster(byte self) {
    byte m = self;
    bool chain;
    mtype seen;
    do
    :: m < ALL ->
        chain = (m == 0);
        /* The first look. */
        atomic { look_at_state() };
        if
        :: seen == CLOSED ->
            atomic {
                fate[m] = REFUSED;
                if
                :: chain -> fate[m + POSTERS] = REFUSED
                :: else
                fi;
                m = m + POSTERS * (1 + chain); chain = false
            }
        :: else ->
#ifdef NO_RELEASE_FENCE
            if
            :: atomic { write_content(m) }; atomic { publish(m) }
            :: atomic { publish(m) }; atomic { write_content(m) }
            fi;
#endif
#if defined(NO_POST_FENCE)
            if
            :: atomic { write_content(m); publish(m) }; atomic { look_at_state() }
            :: atomic { look_at_state() }; atomic { write_content(m); publish(m) }
            fi;
#elif defined(NO_RELEASE_FENCE)
            atomic { look_at_state() };
#else
            atomic { write_content(m); publish(m) };
            atomic { look_at_state() };
#endif
            if
            :: seen == SLEEPING || seen == CLOSED ->
                /* finish_post(): the compare-and-swap, the call that wakes, the look whether it was closed */
                atomic {
                    there();
                    if
                    :: state == SLEEPING -> state = NOTIFIED; seen = SLEEPING
                    :: else -> seen = RUNNING
                    fi
                };
                if
                :: seen == SLEEPING -> atomic { there(); wakeup = true }
                :: else
                fi;
#ifndef NO_SECOND_LOOK
                atomic { look_at_state() };
                if
                :: seen == CLOSED -> discard_inbox()
                :: else
                fi
#endif
            :: else
            fi;
            atomic { m = m + POSTERS * (1 + chain); chain = false; seen = RUNNING }
        fi
    :: else -> break
    od;
    release();
    posters_done++
}

/* Takes all if nothing is left, oldest first. */
inline take() {
    if
    :: taken_count == 0 ->
        taken_first = 0;
        do
        :: in_count > 0 ->
            /* from the bottom of the stack, which is the oldest */
            taken[taken_count] = inbox[0]; taken_count++;
#ifndef NO_OPEN
            if
            :: leads[inbox[0]] -> taken[taken_count] = inbox[0] + POSTERS; taken_count++
            :: else
            fi;
#endif
            i = 0;
            do
            :: i + 1 < in_count -> inbox[i] = inbox[i + 1]; i++
            :: else -> break
            od;
            in_count--; inbox[in_count] = 0; i = 0
        :: else -> break
        od
    :: else
    fi
}

inline run_one() {
    assert(fate[taken[taken_first]] == PUSHED);
    assert(complete[taken[taken_first]]);
    assert(taken[taken_first] / POSTERS == next[taken[taken_first] % POSTERS]); /* in order */
    next[taken[taken_first] % POSTERS]++;
    fate[taken[taken_first]] = RUN;
    taken[taken_first] = 0; taken_first++; taken_count--
}

inline announce() { there(); state = SLEEPING }
inline look_into_box() { there(); idle = (in_count == 0 && taken_count == 0) }
inline close_state() { there(); state = CLOSED }

active proctype owner() {
    byte i, budget;
    bool idle, readable;
    atomic { run poster(0); run poster(1) };

tick:
    /* Between two ticks the loop may be closed. */
    if
    :: goto closing
    :: skip
    fi;
    atomic { look_into_box() };
    if
    :: idle ->
#if defined(NO_RECHECK)
        atomic { announce() };
#elif defined(NO_SLEEP_FENCE)
        if
        :: atomic { announce() }; atomic { look_into_box() }
        :: atomic { look_into_box() }; atomic { announce() }
        fi;
#else
        atomic { announce() };
        atomic { look_into_box() };
#endif
        if
        :: idle ->
            /* The poller waits; the end of all posters is the only other thing that ends it. */
            if
            :: wakeup
            :: posters_done == POSTERS && !wakeup ->
                assert(in_count == 0); /* or nobody would ever run it */
                atomic { state = RUNNING };
                goto closing
            fi
        :: else
        fi;
        atomic { there(); state = RUNNING }
    :: else
    fi;
    readable = wakeup; /* what the poller collected */
    d_step { there(); take() };
    budget = 0;
    do
    :: budget < BUDGET && taken_count > 0 -> d_step { run_one(); budget++ }
    :: else -> break
    od;
    /* The event of the eventfd is served late: a later wake-up may go with it. */
    if
    :: readable -> atomic { there(); wakeup = false }
    :: else
    fi;
    atomic { readable = false; idle = false; budget = 0 };
    goto tick;

closing:
#if defined(NO_CLOSE_FENCE)
    if
    :: atomic { close_state() }; discard_inbox()
    :: discard_inbox(); atomic { close_state() }
    fi;
#else
    atomic { close_state() };
    discard_inbox();
#endif
    /* and what was taken and not run */
    d_step {
        do
        :: taken_count > 0 ->
            assert(fate[taken[taken_first]] == PUSHED);
            fate[taken[taken_first]] = DISCARDED; taken[taken_first] = 0; taken_first++; taken_count--
        :: else -> break
        od
    };
    release();

    posters_done == POSTERS;
    atomic {
        assert(destroyed && in_count == 0);
        i = 0;
        do
        :: i < ALL -> assert(fate[i] == RUN || fate[i] == DISCARDED || fate[i] == REFUSED); i++
        :: else -> break
        od
    }
}
