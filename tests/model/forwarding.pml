/*
 * An address that moves (core/actors/forwarding.c): a home, loop 0, and two other loops, between which a connection
 * moves; it begins at home. One thread posts two messages to it. spin looks at every interleaving of up to three
 * moves, each to any loop, with a connection that may end wherever it is, also under way, and with loops that close
 * when they like. That what is posted to a mailbox is run or discarded in order, once, is mailbox.pml's to prove; here
 * a post is a single step, and so is a close, and each discard after it.
 *
 * Proven: what is received is received in order, once, and by nobody but the connection where it is; nothing is dropped
 * unless the connection has ended or a loop has closed; whatever the moves, in the end nothing waits, no slot is left
 * but that of the connection, and no record of a move; none is used after it was freed.
 *
 * Each of these takes one thing away, and must make the proof fail:
 *   NO_AWAIT      in left_run(): the home waits for what the place is to return
 *   NO_FENCE      in left_run(): the fence, so that the place returns what it has at once
 *   NO_FRONT      in returned(): what is returned comes before what the home has kept
 *   NO_KEEP       in deliver_at_place(): what comes to who has left is kept
 *   NO_NOTHING    in fence_discard(): a loop that has closed has nothing to return
 *   NO_ENDED      in tram__address_end(): the home is told
 *   NO_REFERENCE  in tram__address_arrive(): the reference of the mail that tells of the arrival
 *   NO_PASS       in left_discard(): the fence of a home that has closed
 *   NO_HOME       in go_on(): who is on the home's loop, and has not left it again, is reached directly
 */
#define LOOPS    3
#define MESSAGES 2
#define MOVES    3
#define NONE     9 /* no place */
#define DIRECT   8 /* at home, as if it had never moved */
#define GONE     7

mtype = { MESSAGE, ARRIVED, LEFT, FENCE, RETURNED, NOTHING, ENDED };

/* What, the move, the message. To the home's own slot the move is NONE. */
chan box[LOOPS] = [12] of { mtype, byte, byte };
bool closed[LOOPS];

/* Moves. */
byte references[MOVES];
byte where[MOVES];
bool slot[MOVES];    /* of the place */
bool present[MOVES]; /* the connection is there */
chan kept[MOVES] = [MESSAGES] of { byte };

/* The home. */
bool home_slot = true;
bool forwards;
byte place = NONE;
byte awaited;
chan waits = [MESSAGES] of { byte };
chan behind = [MESSAGES] of { byte };

/* The connection: DIRECT, GONE, or a move; and whether that is under way. */
byte now = DIRECT;
bool under_way;
byte moves;

#define UNSENT   0
#define REFUSED  1
#define POSTED   2
#define RECEIVED 3
#define DROPPED  4
byte fate[MESSAGES];
bool calm;
byte next;      /* of those that may be received */
bool may_drop;

inline there(m) { assert(references[m] > 0) }

inline release(m) {
    there(m);
    references[m]--
}

inline receive(n) {
    assert(fate[n] == POSTED && n >= next);
    fate[n] = RECEIVED;
    next = n + 1
}

inline drop(n) {
    assert(fate[n] == POSTED && may_drop);
    fate[n] = DROPPED
}

inline drop_all(list) {
    do
    :: nempty(list) -> list ? n; drop(n)
    :: empty(list) -> break
    od
}

/* Every other mail of a move's has a reference, which whoever could not post it releases. */
inline tell(to, what, m) {
    there(m);
    if
    :: closed[to] -> release(m)
    :: else -> box[to] ! what, m, 0
    fi
}

/* ---- At home ---- */

inline go_on() {
    if
    :: place == NONE || awaited > 0 -> skip
#ifdef NO_HOME
    :: place != NONE && awaited == 0 && where[place] == 0 ->
#else
    :: place != NONE && awaited == 0 && where[place] == 0 && present[place] ->
#endif
        there(place);
        assert(present[place] && now == place);
        forwards = false;
        slot[place] = false; present[place] = false; now = DIRECT;
        release(place);
        place = NONE;
        do
        :: nempty(waits) -> waits ? n; receive(n)
        :: empty(waits) -> break
        od
#ifdef NO_HOME
    :: place != NONE && awaited == 0 && where[place] != 0 ->
#else
    :: place != NONE && awaited == 0 && !(where[place] == 0 && present[place]) ->
#endif
        there(place);
        do
        :: nempty(waits) ->
            waits ? n;
            if
            :: closed[where[place]] -> drop(n)
            :: else -> box[where[place]] ! MESSAGE, place, n
            fi
        :: empty(waits) -> break
        od
    fi
}

inline returned(m) {
    if
    :: home_slot && forwards ->
#ifdef NO_FRONT
        do
        :: nempty(kept[m]) -> kept[m] ? n; waits ! n
        :: empty(kept[m]) -> break
        od;
#else
        do
        :: nempty(waits) -> waits ? n; behind ! n
        :: empty(waits) -> break
        od;
        do
        :: nempty(kept[m]) -> kept[m] ? n; waits ! n
        :: empty(kept[m]) -> break
        od;
        do
        :: nempty(behind) -> behind ? n; waits ! n
        :: empty(behind) -> break
        od;
#endif
#ifndef NO_AWAIT
        awaited--;
#endif
        go_on()
    :: else -> drop_all(kept[m])
    fi;
    release(m)
}

inline run_at_home() {
    if
    :: what == MESSAGE && m == NONE ->
        if
        :: !home_slot -> drop(n)
        :: home_slot && !forwards -> assert(now == DIRECT); receive(n)
        :: home_slot && forwards && (place == NONE || awaited > 0) -> waits ! n
        :: home_slot && forwards && place != NONE && awaited == 0 ->
            there(place);
            if
            :: closed[where[place]] -> drop(n)
            :: else -> box[where[place]] ! MESSAGE, place, n
            fi
        fi
    :: what == ARRIVED ->
        there(m);
        if
        :: home_slot && forwards -> place = m; go_on()
        :: else
        fi;
#ifdef NO_REFERENCE
        skip
#else
        release(m)
#endif
    :: what == LEFT ->
        there(m);
        if
        :: home_slot && forwards ->
            place = NONE;
#ifndef NO_AWAIT
            awaited++
#endif
        :: else
        fi;
        if
        :: closed[where[m]] -> returned(m)
        :: else -> box[where[m]] ! FENCE, m, 0
        fi
    :: what == RETURNED || what == NOTHING -> there(m); returned(m)
    :: what == ENDED ->
        there(m);
        if
        :: home_slot && forwards -> home_slot = false; forwards = false; place = NONE; drop_all(waits)
        :: else
        fi;
        release(m)
    :: else
    fi
}

/* ---- At a place ---- */

inline run_at_place() {
    if
    :: what == MESSAGE && m != NONE ->
        if
        :: !slot[m] -> drop(n)
        :: slot[m] && present[m] -> assert(now == m && !under_way); receive(n)
#ifdef NO_KEEP
        :: slot[m] && !present[m] -> drop(n)
#else
        :: slot[m] && !present[m] -> kept[m] ! n
#endif
        fi
    :: what == FENCE ->
        there(m);
        slot[m] = false;
        if
        :: closed[0] -> drop_all(kept[m]); release(m)
        :: else -> box[0] ! RETURNED, m, 0
        fi;
        release(m)
    :: else
    fi
}

inline discard() {
    if
    :: what == MESSAGE -> drop(n)
#ifdef NO_REFERENCE
    :: what == ARRIVED -> there(m)
#else
    :: what == ARRIVED -> release(m)
#endif
    :: what == NOTHING || what == ENDED -> release(m)
#ifdef NO_PASS
    :: what == LEFT -> release(m)
#else
    :: what == LEFT -> tell(where[m], FENCE, m)
#endif
#ifdef NO_NOTHING
    :: what == FENCE -> release(m)
#else
    :: what == FENCE -> tell(0, NOTHING, m)
#endif
    :: what == RETURNED -> drop_all(kept[m]); release(m)
    fi
}

/* ---- The connection ---- */

inline end_move(m) {
    may_drop = true;
    now = GONE;
    under_way = false;
#ifdef NO_ENDED
    release(m)
#else
    tell(0, ENDED, m)
#endif
}

inline leave() {
    if
    :: now == DIRECT -> forwards = true; place = NONE; awaited = 0
    :: else ->
        present[now] = false;
        if
        :: closed[0] -> slot[now] = false; release(now)
        :: else ->
            references[now]++;
#ifdef NO_FENCE
            slot[now] = false;
            box[0] ! RETURNED, now, 0;
            release(now)
#else
            box[0] ! LEFT, now, 0
#endif
        fi
    fi;
    now = moves;
    references[now] = 1;
    under_way = true;
    moves++
}

inline arrive(me) {
    under_way = false;
    where[now] = me;
    slot[now] = true;
    present[now] = true;
    if
    :: closed[0] -> slot[now] = false; present[now] = false; release(now); now = GONE /* it has no address any more */
    :: else ->
#ifndef NO_REFERENCE
        references[now]++;
#endif
        box[0] ! ARRIVED, now, 0
    fi
}

inline close_loop(me) {
    may_drop = true;
    m = 0;
    do
    :: m < MOVES ->
        if
        :: where[m] == me && slot[m] && present[m] -> slot[m] = false; present[m] = false; end_move(m)
        :: where[m] == me && slot[m] && !present[m] -> slot[m] = false; drop_all(kept[m]); release(m)
        :: else
        fi;
        m++
    :: else -> break
    od;
    if
    :: me == 0 ->
        home_slot = false; forwards = false; place = NONE;
        drop_all(waits);
        if
        :: now == DIRECT -> now = GONE
        :: else
        fi
    :: else
    fi;
    closed[me] = true
}

proctype loop(byte me) {
    byte m, n;
    mtype what;
end:
    do
    :: d_step { closed[me] && nempty(box[me]) -> box[me] ? what, m, n; discard(); m = 0; n = 0; what = 0 }
    :: d_step { !closed[me] && nempty(box[me]) -> box[me] ? what, m, n;
                if
                :: me == 0 -> run_at_home()
                :: else
                fi;
                run_at_place();
                m = 0; n = 0; what = 0 }
    :: d_step { !calm && !closed[me] && !under_way && moves < MOVES && now != GONE &&
                ((now == DIRECT && me == 0) || (now < MOVES && where[now] == me)) -> leave() }
    :: d_step { !closed[me] && under_way -> arrive(me) }
    :: d_step { !calm && !closed[me] && !under_way && now < MOVES && where[now] == me ->
                n = now; slot[n] = false; present[n] = false; end_move(n); n = 0 }
    :: d_step { under_way -> n = now; end_move(n); n = 0 } /* whoever frees it */
    :: d_step { !calm && !closed[me] -> close_loop(me); m = 0; n = 0; what = 0 }
    od
}

active proctype poster() {
    byte n;
    do
    :: n < MESSAGES ->
        d_step {
            if
            :: closed[0] -> fate[n] = REFUSED
            :: else -> fate[n] = POSTED; box[0] ! MESSAGE, NONE, n
            fi;
            n++
        }
    :: else -> break
    od
}

/* From some moment on nobody decides anything any more, but that who is under way arrives or ends. */
active proctype judge() {
    byte i;
    atomic { run loop(0); run loop(1); run loop(2) };
    calm = true;
    timeout;
    atomic {
        i = 0;
        do
        :: i < MESSAGES -> assert(fate[i] == RECEIVED || fate[i] == DROPPED || fate[i] == REFUSED); i++
        :: else -> break
        od;
        i = 0;
        do
        :: i < MOVES ->
            assert(references[i] == (now == i));
            assert(slot[i] == (now == i));
            i++
        :: else -> break
        od
    }
}
