/*
 * Posts by address (core/actors): a loop's number with pins, slots that are used again, a bound that is counted, a loop
 * that ends while others post, and the next loop of the same number. tests/checks/model.sh lets spin look at every
 * interleaving of two posters with three messages between them and an owner that ends when it likes. The third message
 * is a request that is held back: it is accepted before it is pushed, and its poster has a route meanwhile. That a push
 * and a close meet well is mailbox.pml's to prove; here they are single steps.
 *
 * Proven: nobody but the addressee receives a message; each that was accepted is received or dropped, once; what is
 * counted against the bound comes back, so that in the end nothing is; the bound is kept; nothing is touched after the
 * last hold has gone, and the number is given to another loop only then.
 *
 * Each of these takes one thing away, and must make the proof fail:
 *   NO_GENERATION       in addressee_of(): the look whether the slot still has the generation that was meant
 *   NO_PIN              in tram__directory_pin(): the pin, so that only the word is looked at
 *   NO_WAIT_FOR_PINS    in tram__directory_remove(): the look at the pins
 *   NO_LOOP_GENERATION  in tram__directory_pin(): the comparison of the loop's generation
 *   NO_UNUSED           in give_back(): the generation of a number that nobody has
 *   NO_LAST_UNPIN       in tram__directory_unpin(): giving the number back
 *   NO_COUNT_FIRST      in try_post_to(): counting and looking in one step
 *   NO_UNCOUNT          in bounded_run(): the place of a message whose addressee has ended
 *   NO_UNCOUNT_REFUSED  in try_post_to(): the place of a message that was refused
 *   NO_SECOND_LOOK      in finish_post(): the look whether the box was closed
 *   NO_ROUTE            in send_request(): the hold of what a request is held back for
 *   NO_DISCARD          in send_requests(): the end of those whose loop has closed meanwhile
 */
#define POSTERS  2
#define MESSAGES 3
#define LIMIT    1
#define NOBODY   255

/* The number's word, and whose it is: object 0 is the first loop's, 1 the next one's. */
byte generation = 1;
bool ended;
byte pins;
byte object;
byte references[2];
bool freed[2];
bool taken_again; /* the number has its next loop */
bool closed[2];

/* The slot of the first loop: who has it is told by its generation. */
byte slot = 1;
byte published = 1; /* the address that posters know */

byte bounded;
byte on_the_way; /* of those that are bounded */
bool is_bounded[MESSAGES];
byte meant[MESSAGES];

#define UNSENT   0
#define REFUSED  1
#define ACCEPTED 2
#define RECEIVED 3
#define DROPPED  4
byte fate[MESSAGES];
byte inbox[MESSAGES], in_count;
byte posters_done;

inline release(which) {
    assert(!freed[which]);
    references[which]--;
    if
    :: references[which] == 0 -> freed[which] = true
    :: else
    fi
}

/* One step: the compare-and-swap, and what follows for who wins. `want` is the word that was seen to have no pin. */
inline give_back() {
    atomic {
        if
        :: ended && pins == 0 && generation % 2 == 1 ->
            ended = false;
#ifndef NO_UNUSED
            generation++;
#endif
            release(object)
        :: else
        fi
    }
}

inline drop(m) {
    assert(fate[m] == ACCEPTED);
    fate[m] = DROPPED
}

inline discard_all() {
    d_step {
        do
        :: in_count > 0 -> in_count--; drop(inbox[in_count]); inbox[in_count] = 0
        :: else -> break
        od
    }
}

proctype poster(byte self) {
    byte m = self, seen = NOBODY;
    bool last, held;
    do
    :: m < MESSAGES ->
        atomic {
            meant[m] = published;
            is_bounded[m] = (m != 2)
        };
        /* The pin, and what the word was. Addresses are of generation 1. */
        atomic {
#ifndef NO_PIN
            pins++;
#endif
            if
#ifdef NO_LOOP_GENERATION
            :: generation % 2 == 1 && !ended -> seen = object
#else
            :: generation == 1 && !ended -> seen = object
#endif
            :: else -> seen = NOBODY
            fi
        };
        if
        :: seen == NOBODY -> fate[m] = REFUSED
        :: else ->
            assert(!freed[seen] && seen == 0);
            if
            :: is_bounded[m] ->
#ifdef NO_COUNT_FIRST
                atomic { assert(!freed[seen]); last = (bounded >= LIMIT) };
                atomic {
                    bounded++;
                    if
                    :: last -> fate[m] = REFUSED
                    :: else -> skip
                    fi;
                    last = false
                }
#else
                atomic {
                    assert(!freed[seen]);
                    bounded++;
                    if
                    :: bounded > LIMIT -> fate[m] = REFUSED
                    :: else -> skip
                    fi
                }
#endif
            :: else
            fi;
            if
            :: fate[m] == UNSENT ->
                atomic {
                    assert(!freed[seen]);
                    if
                    :: closed[seen] -> fate[m] = REFUSED
                    :: else -> skip
                    fi
                };
                if
                :: fate[m] == UNSENT && !is_bounded[m] -> held = true; fate[m] = ACCEPTED
                :: fate[m] == UNSENT && is_bounded[m] ->
                    atomic { assert(!freed[seen]); fate[m] = ACCEPTED; inbox[in_count] = m; in_count++;
                             on_the_way = on_the_way + is_bounded[m]; assert(on_the_way <= LIMIT) };
#ifndef NO_SECOND_LOOK
                    atomic {
                        assert(!freed[seen]);
                        if
                        :: closed[seen] -> discard_all()
                        :: else
                        fi
                    }
#endif
                :: else
                fi
            :: else
            fi;
            if
            :: fate[m] == REFUSED && is_bounded[m] ->
#ifndef NO_UNCOUNT_REFUSED
                atomic { assert(!freed[seen]); bounded-- }
#else
                skip
#endif
            :: else
            fi
        fi;
#ifndef NO_ROUTE
        if
        :: held -> atomic { assert(!freed[seen]); references[seen]++ }
        :: else
        fi;
#endif
#ifndef NO_PIN
        atomic { pins--; last = (ended && pins == 0) };
#ifndef NO_LAST_UNPIN
        if
        :: last -> give_back()
        :: else
        fi;
#endif
#endif
        if
        :: held ->
            /* At the end of the tick. */
            atomic {
                assert(!freed[seen]);
                if
                :: closed[seen] -> last = true
                :: else -> last = false; inbox[in_count] = m; in_count++
                fi
            };
            if
#ifndef NO_DISCARD
            :: last -> drop(m)
#endif
#ifndef NO_SECOND_LOOK
            :: !last ->
                atomic {
                    assert(!freed[seen]);
                    if
                    :: closed[seen] -> discard_all()
                    :: else
                    fi
                }
#endif
            :: else
            fi;
#ifndef NO_ROUTE
            atomic { release(seen) };
#endif
            held = false
        :: else
        fi;
        atomic { m = m + POSTERS; seen = NOBODY; last = false }
    :: else -> break
    od;
    posters_done++
}

inline run_one() {
    byte_m = inbox[0];
    i = 0;
    do
    :: i + 1 < in_count -> inbox[i] = inbox[i + 1]; i++
    :: else -> break
    od;
    i = 0; in_count--; inbox[in_count] = 0;
#ifdef NO_UNCOUNT
    if
    :: is_bounded[byte_m] && meant[byte_m] == slot -> bounded--
    :: else
    fi;
#else
    if
    :: is_bounded[byte_m] -> bounded--
    :: else
    fi;
#endif
    on_the_way = on_the_way - is_bounded[byte_m];
    assert(fate[byte_m] == ACCEPTED);
    if
#ifdef NO_GENERATION
    :: true ->
#else
    :: meant[byte_m] == slot ->
#endif
        assert(meant[byte_m] == slot); /* nobody else's */
        fate[byte_m] = RECEIVED
    :: else -> fate[byte_m] = DROPPED
    fi;
    byte_m = 0
}

active proctype owner() {
    byte i, byte_m;
    atomic { references[0] = 2; run poster(0); run poster(1) };
    do
    :: in_count > 0 -> d_step { run_one() }
    :: slot < 2 -> atomic { slot++; published = slot } /* the slot has another, whose address becomes known */
    :: break
    :: posters_done == POSTERS && in_count == 0 -> break
    od;
    /* The loop closes: nobody is to find it, then the box is closed and emptied, then its own hold goes. */
    bool without_pins;
    atomic { ended = true; without_pins = (pins == 0) };
    if
#ifdef NO_WAIT_FOR_PINS
    :: true -> atomic { ended = false; generation++; release(object) }
#else
    :: without_pins -> give_back()
#endif
    :: else
    fi;
    atomic { assert(!freed[0]); closed[0] = true };
    atomic {
        /* What is left was accepted; those of the bound are nobody's to count any more. */
        i = 0;
        do
        :: i < in_count ->
            if
            :: is_bounded[inbox[i]] -> bounded--; on_the_way--
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0;
        discard_all()
    };
    atomic { release(0) };
    posters_done == POSTERS;
    atomic {
        assert(in_count == 0 && freed[0]);
        assert(bounded == on_the_way);
        i = 0;
        do
        :: i < MESSAGES -> assert(fate[i] == RECEIVED || fate[i] == DROPPED || fate[i] == REFUSED); i++
        :: else -> break
        od
    }
}

/* The next loop takes the number as soon as it is free. */
active proctype next_loop() {
    do
    :: atomic {
#ifdef NO_UNUSED
        freed[0] && !ended && !taken_again ->
#else
        generation == 2 && !ended && !taken_again ->
#endif
            taken_again = true;
            references[1] = 2;
            object = 1;
            generation = 3
        };
        break
    :: posters_done == POSTERS -> break
    od
}
