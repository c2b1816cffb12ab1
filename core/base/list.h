/* Intrusive doubly linked list: a head is a node of its own, and a node can leave whatever list it is in. */
#ifndef TRAM_CORE_BASE_LIST_H
#define TRAM_CORE_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/assert.h"

struct list {
    struct list *next;
    struct list *previous;
};

static inline void list_init(struct list *list) {
    list->next = list->previous = list;
}

/* The neighbours of a node know it. */
static inline bool list_linked(const struct list *node) {
    return node->next && node->previous && node->next->previous == node && node->previous->next == node;
}

/* Looks at every node; how many there are. */
static inline size_t list_validate(const struct list *list) {
    size_t count = 0;
    const struct list *node = list;
    do {
        TRAM_ASSERT(list_linked(node));
        node = node->next;
        count++;
    } while (node != list);
    return count - 1;
}

static inline bool list_empty(const struct list *list) {
    return list->next == list;
}

static inline void list_append(struct list *list, struct list *node) {
    TRAM_DCHECK(list_linked(list));
    node->next = list;
    node->previous = list->previous;
    list->previous->next = node;
    list->previous = node;
}

/* Afterwards the node is a list of its own, so that removing it again is harmless. */
static inline void list_remove(struct list *node) {
    TRAM_DCHECK(list_linked(node));
    node->previous->next = node->next;
    node->next->previous = node->previous;
    list_init(node);
}

/* Moves all nodes of `from` to the end of `to`, in order. */
static inline void list_move_all(struct list *from, struct list *to) {
    if (list_empty(from))
        return;
    from->next->previous = to->previous;
    to->previous->next = from->next;
    from->previous->next = to;
    to->previous = from->previous;
    list_init(from);
}

#endif
