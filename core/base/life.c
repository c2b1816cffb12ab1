#include "core/base/life.h"

#include <stdio.h>

#include "core/base/probes.h"

__attribute__((noinline)) static _Noreturn void forbidden(const struct life_table *table, unsigned state,
                                                          unsigned move) {
    char text[160];
    const char *name = table->states[state].name;
    snprintf(text, sizeof text, "move %u of a %s that is %s", move, table->name, name ? name : "nothing");
    tram__assert_failed(text, __func__, __FILE__, __LINE__);
}

void tram__life_move(const struct life_table *table, uint8_t *state, unsigned move, const void *object) {
    unsigned next = life_next(table, *state, move);
    if (__builtin_expect(!next, 0))
        forbidden(table, *state, move);
    *state = (uint8_t)next;
    PROBE3(life, table->name, object, table->states[next].name);
    if (TRAM_CHECKED && table->validate)
        table->validate(object);
}
