#include "transports/base/life.h"

/*
 * The moves that there are; every other one is a fault of the library, which checked builds catch. After a change:
 * tests/checks/life.py --update.
 */
static const uint8_t moves[LIFE_COUNT][MOVE_COUNT] = {
    [LIFE_MAKING] = {[MOVE_MADE] = LIFE_OPEN, [MOVE_CLOSE] = LIFE_MAKING_CLOSING, [MOVE_END] = LIFE_MAKING_ENDED},
    [LIFE_MAKING_CLOSING] = {[MOVE_MADE] = LIFE_CLOSING, [MOVE_END] = LIFE_MAKING_ENDED},
    [LIFE_MAKING_ENDED] = {[MOVE_MADE] = LIFE_ENDED, [MOVE_LOSE] = LIFE_LOST},
    [LIFE_OPEN] = {[MOVE_CLOSE] = LIFE_CLOSING, [MOVE_END] = LIFE_ENDED},
    [LIFE_CLOSING] = {[MOVE_LINGER] = LIFE_LINGERING, [MOVE_END] = LIFE_ENDED},
    [LIFE_LINGERING] = {[MOVE_END] = LIFE_ENDED},
    [LIFE_ENDED] = {[MOVE_LOSE] = LIFE_LOST},
};

enum life tram__life_of(uint32_t flags) {
    switch (flags & LIFE_FLAGS) {
    case T_MADE_PENDING:
        return LIFE_MAKING;
    case T_MADE_PENDING | T_CLOSING:
        return LIFE_MAKING_CLOSING;
    case T_MADE_PENDING | T_CLOSING | T_LOST_PENDING:
        return LIFE_MAKING_ENDED;
    case T_MADE:
        return LIFE_OPEN;
    case T_MADE | T_CLOSING:
        return LIFE_CLOSING;
    case T_MADE | T_CLOSING | T_LINGERING:
        return LIFE_LINGERING;
    case T_MADE | T_CLOSING | T_LOST_PENDING:
    case T_MADE | T_CLOSING | T_LOST_PENDING | T_LINGERING:
        return LIFE_ENDED;
    case T_CLOSING | T_LOST_PENDING | T_LOST: /* connection_made never came */
    case T_MADE | T_CLOSING | T_LOST_PENDING | T_LOST:
    case T_MADE | T_CLOSING | T_LOST_PENDING | T_LINGERING | T_LOST:
        return LIFE_LOST;
    default:
        return LIFE_NONE;
    }
}

enum life tram__life_next(enum life life, enum move move) {
    return (enum life)moves[life][move];
}
