/*
 * Addresses that move from loop to loop and stay what they are. An address is of its home, the loop that gave it; what
 * is posted there is sent on to where its target is now, which costs one hop however often that has moved.
 *
 * At home the slot delivers to its target, or it forwards. Forwarding it is in one of two states: the target is at some
 * place, a slot of another loop, and what comes is sent on; or it is under way, and what comes is kept, in order. The
 * home sends to one place at a time. Who leaves a place tells the home (LEFT), and the slot there keeps what still
 * arrives; the home answers with a FENCE behind all that it had sent there; at the fence the place gives its slot back
 * and what it kept (RETURNED), which comes before what the home has kept. When that is back and the target has told
 * from where it is now that it has ARRIVED, in whichever order, what was kept goes there, or, if that is the home
 * itself, to the target. When the target ends (ENDED), so does the slot at home.
 *
 * What is kept and sent on are mail nodes: a request's and a credit's own, so that they need no memory and are answered
 * to the asker directly; for a message one of the home's, which goes back there. What a message counts for the bound of
 * its address it counts until it is received.
 *
 * The mail by which a move is told lies in its record, made when the target leaves, so that this needs no memory.
 * The loops know each other by holds. If the home closes nobody can be reached by the address any more, and each place
 * finds out when its mail is refused.
 */
#ifndef TRAM_CORE_ACTORS_FORWARDING_H
#define TRAM_CORE_ACTORS_FORWARDING_H

#include "core/actors/actors.h"

/* The move of an address to a place, and what is kept of it there. */
struct move;

/* For who has the slot on this loop and is about to leave: 0 or -ENOMEM. To be undone, or left by. */
int tram__move_new(tram_loop *loop, uint32_t slot, struct move **ret_move);
void tram__move_undo(struct move *move);

/* It leaves: the slot is no more the target's, whose address is the move's until it arrives or ends. */
void tram__address_leave(tram_loop *loop, uint32_t slot, struct move *move);

/*
 * The target of the move on this loop: stores its slot, now and should that change. 0, or as tram__actors_open(): then
 * the move is the caller's still. A slot of 0: the home has closed, so there is no such address any more.
 */
int tram__address_arrive(tram_loop *loop, struct move *move, deliver_function deliver, void *target, uint32_t *slot);

/* It arrives nowhere. Any thread. */
void tram__move_end(struct move *move);

/* The target of a slot has ended: tram__address_close() of one that may have moved. */
void tram__address_end(tram_loop *loop, uint32_t slot);

/* The address of who has the slot: its home's. */
tram_address tram__address_of(tram_loop *loop, uint32_t slot);

/* Has that home closed? Then the slot is of no use. */
bool tram__address_is_void(tram_loop *loop, uint32_t slot);

/* Is the slot one that forwards, or one of a target that has come from elsewhere? */
bool tram__address_moved(const struct addressee *addressee);

/* A credit has come for the slot: true: it is kept, or sent on, as a message would be. */
bool tram__forward_credit(struct addressee *addressee, struct mail *mail);

#endif
