#include "core/loop/raised.h"

struct raised_user {
    struct ready ready; /* runs in the tick after the raise */
    struct raised_user *next;
    void *user;
    void (*release)(void *user);
    unsigned claims;
    bool fresh; /* the tick of the raise is not over */
};

static struct raised_user *from_ready(struct ready *ready) {
    return container_of(ready, struct raised_user, ready);
}

static void end(tram_loop *loop, struct raised_user *raised) {
    struct raised_user **link = &loop->raised_users;
    while (*link != raised)
        link = &(*link)->next;
    *link = raised->next;
    list_remove(&raised->ready.link);
    void *user = raised->user;
    void (*release)(void *user) = raised->release;
    memory_put(&loop->allocator, raised, sizeof *raised);
    release(user);
}

static void grow_old(tram_loop *loop, struct ready *ready) {
    struct raised_user *raised = from_ready(ready);
    raised->fresh = false;
    if (!raised->claims)
        end(loop, raised);
}

/* The record of the pointer; with claims where that is what is wanted. */
static struct raised_user *find(const tram_loop *loop, const void *user, bool claimed) {
    struct raised_user *raised = loop->raised_users;
    while (raised && (raised->user != user || (claimed && !raised->claims)))
        raised = raised->next;
    return raised;
}

void tram__raised_claim(tram_loop *loop, const void *user) {
    struct raised_user *raised = find(loop, user, false);
    if (raised)
        raised->claims++;
}

void tram__raised_drop(tram_loop *loop, const void *user) {
    struct raised_user *raised = find(loop, user, true);
    if (raised && --raised->claims == 0 && !raised->fresh)
        end(loop, raised);
}

void tram__raised_fini(tram_loop *loop) {
    while (loop->raised_users)
        end(loop, loop->raised_users);
}

int tram_loop_raise_with_release(tram_loop *loop, int code, void *user, void (*release)(void *user),
                                 const char *detail) {
    struct raised_user *raised = NULL;
    int status = loop_enter(loop, __func__);
    if (status)
        return status;
    if (user && release) {
        raised = memory_get(&loop->allocator, sizeof *raised);
        if (!raised) {
            release(user);
            return tram_loop_raise(loop, code, NULL, detail);
        }
        *raised = (struct raised_user){
            .ready.run = grow_old, .next = loop->raised_users, .user = user, .release = release, .fresh = true};
        loop->raised_users = raised;
        loop_ready(loop, &raised->ready);
    }
    return tram_loop_raise(loop, code, user, detail);
}
