/* Intrusive doubly linked list: a head is a node of its own, and a node can leave whatever list it is in. */
#ifndef TRAM_CORE_BASE_LIST_H
#define TRAM_CORE_BASE_LIST_H

#include <stdbool.h>

struct list {
    struct list *next;
    struct list *previous;
};

static inline void list_init(struct list *list) {
    list->next = list->previous = list;
}

static inline bool list_empty(const struct list *list) {
    return list->next == list;
}

static inline void list_append(struct list *list, struct list *node) {
    node->next = list;
    node->previous = list->previous;
    list->previous->next = node;
    list->previous = node;
}

/* Afterwards the node is a list of its own, so that removing it again is harmless. */
static inline void list_remove(struct list *node) {
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
