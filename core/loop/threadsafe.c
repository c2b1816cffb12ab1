/*
 * Calls from any thread that any thread may take back. The loop's mail and the user share a counted record whose state
 * leaves PENDING once: who moves it runs the callback, discards it, or has cancelled it.
 */
#include <errno.h>
#include <stdatomic.h>

#include "core/base/invalid.h"
#include "core/loop/loop.h"

enum handle_state { HANDLE_PENDING, HANDLE_TAKEN, HANDLE_CANCELLED };

struct tram_threadsafe_handle {
    _Atomic unsigned references; /* the user's, and that of the mail */
    _Atomic int state;
    tram_callback callback;
    void *arg;
    tram_discard discard;
};

/* It may outlive its loop, so it is of the default memory, as buffers are. */
static void put(tram_threadsafe_handle *handle) {
    if (atomic_fetch_sub_explicit(&handle->references, 1, memory_order_acq_rel) == 1)
        memory_put(&tram__memory_default, handle, sizeof *handle);
}

static bool leave_pending(tram_threadsafe_handle *handle, enum handle_state state) {
    int pending = HANDLE_PENDING;
    return atomic_compare_exchange_strong_explicit(&handle->state, &pending, (int)state, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

static int run_handle(tram_loop *loop, void *arg) {
    tram_threadsafe_handle *handle = arg;
    tram_callback callback = leave_pending(handle, HANDLE_TAKEN) ? handle->callback : NULL;
    void *callback_arg = handle->arg;
    put(handle);
    int status = callback ? callback(loop, callback_arg) : 0;
    loop_stands_for(loop, run_handle, (const void *)(uintptr_t)callback);
    return status;
}

static void discard(void *arg) {
    tram_threadsafe_handle *handle = arg;
    if (leave_pending(handle, HANDLE_TAKEN) && handle->discard)
        handle->discard(handle->arg);
    put(handle);
}

int tram_loop_call_soon_threadsafe_handle(tram_loop *loop, tram_callback callback, void *arg, tram_discard discarding,
                                          tram_threadsafe_handle **ret_handle) {
    if (!callback || !ret_handle)
        return tram__invalid(callback ? "ret_handle" : "callback");
    tram_threadsafe_handle *handle = memory_get(&tram__memory_default, sizeof *handle);
    if (!handle)
        return -ENOMEM;
    atomic_init(&handle->references, 2);
    atomic_init(&handle->state, HANDLE_PENDING);
    handle->callback = callback;
    handle->arg = arg;
    handle->discard = discarding;
    int status = tram_loop_call_soon_threadsafe(loop, run_handle, handle, discard);
    if (status)
        memory_put(&tram__memory_default, handle, sizeof *handle);
    else
        *ret_handle = handle;
    return status;
}

int tram_threadsafe_handle_cancel(tram_threadsafe_handle *handle) {
    return leave_pending(handle, HANDLE_CANCELLED);
}

bool tram_threadsafe_handle_cancelled(const tram_threadsafe_handle *handle) {
    return atomic_load_explicit(&handle->state, memory_order_acquire) == HANDLE_CANCELLED;
}

void tram_threadsafe_handle_release(tram_threadsafe_handle *handle) {
    if (handle)
        put(handle);
}
