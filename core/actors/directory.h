/*
 * The numbers of the loops that have addresses, for the whole process: from a number and its generation to whom can be
 * posted to there. A fixed table of cells, so that nothing that is read here is ever freed.
 *
 * A cell's word has the generation, the number of pins, and whether the loop has ended. Who pins finds out by the same
 * step whether the generation is still the one that he means; as long as he has the pin what the cell refers to stays.
 * The loop gives its number back once it has ended and the last pin has gone, whoever that was. Pins are for moments:
 * a thread that runs a loop pins once for each loop that it posts to, to get a route (routes.h).
 */
#ifndef TRAM_CORE_ACTORS_DIRECTORY_H
#define TRAM_CORE_ACTORS_DIRECTORY_H

#include "core/actors/addressees.h"

/* Gives them a number, and holds them as long as they have it. 0, or TRAM_ELIMIT: there are TRAM_LOOPS_MAX. */
int tram__directory_add(struct addressees *addressees);

/* The loop ends: nobody finds it any more. Once. */
void tram__directory_remove(const struct addressees *addressees);

/* The addressees of this number and generation, pinned, or NULL. Any thread. */
struct addressees *tram__directory_pin(uint32_t number, uint32_t generation);
void tram__directory_unpin(uint32_t number);

#endif
