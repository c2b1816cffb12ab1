/*
 * Lives as tables. Which states an object of a kind can be in, and which moves lead from one to the next, is data, and
 * life_move() alone changes a state: it looks the move up, tells tracers (the probe `life`), and in checked builds asks
 * whether the object is what its new state says. A move that the table does not have is a fault of the library, and
 * ends the process: what follows would be done twice, or to something that is not there.
 *
 * The drawings in docs/architecture.md are made of the tables: tests/checks/life.py.
 */
#ifndef TRAM_CORE_BASE_LIFE_H
#define TRAM_CORE_BASE_LIFE_H

#include <stdint.h>

#include "core/base/assert.h"

#define LIFE_MOVES_MAX 8

/* States are numbered from 1, in the order of a life, which never goes back. */
struct life_state {
    const char *name;
    uint8_t next[LIFE_MOVES_MAX]; /* by move: the state it leads to; 0: it is forbidden */
};

struct life_table {
    const char *name; /* of the objects */
    const struct life_state *states;
    void (*validate)(const void *object); /* after a move, in checked builds; may be NULL */
};

/* Where a move leads; 0: it is forbidden. */
static inline unsigned life_next(const struct life_table *table, unsigned state, unsigned move) {
    return table->states[state].next[move];
}

/* Makes a move of the object that `state` belongs to. */
void tram__life_move(const struct life_table *table, uint8_t *state, unsigned move, const void *object);

#endif
