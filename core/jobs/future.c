/*
 * Futures. A callback is a record that waits in the future's list and, once the future is done, in the ready
 * queue of the loop; there it holds the future. The first record is a part of the future, and waits for it without the
 * list: where it is the only one, which is usual, it goes to the ready queue by one step.
 */
#include "core/jobs/future.h"

#include <errno.h>
#include <string.h>

#include "core/loop/raised.h"
#include <tram/stats.h>

static const struct future_kind plain_kind = {.name = "future"};

static struct future_watch *watch_of(struct list *link) {
    return container_of(link, struct future_watch, ready.link);
}

static struct done_callback *callback_of(struct future_watch *watch) {
    return container_of(watch, struct done_callback, watch);
}

/* ---- Life ---- */

int tram__future_new(tram_loop *loop, const struct future_kind *kind, size_t size, void *ret_future) {
    tram_future *future = tram__memory_get_zero(&loop->allocator, size);
    if (!future)
        return -ENOMEM;
    tram__future_init(future, loop, kind);
    TRAM_DCHECK(size <= UINT32_MAX);
    future->size = (uint32_t)size;
    memcpy(ret_future, &future, sizeof future); /* a pointer to whatever embeds it */
    return 0;
}

static inline struct done_callback *new_callback(tram_future *future) {
    if (likely(future->waits == WAITS_NOBODY || (future->waits == WAITS_LIST && list_empty(&future->callbacks))))
        return &future->first;
    return memory_get(&future->loop->allocator, sizeof(struct done_callback));
}

__attribute__((noinline)) static void put_callback(struct done_callback *record) {
    memory_put(&record->watch.future->loop->allocator, record, sizeof *record);
}

static inline void free_callback(struct done_callback *record) {
    tram_future *future = record->watch.future;
    if (likely(record == &future->first))
        future->waits = WAITS_NOBODY;
    else
        put_callback(record);
}

/* The list is all of those that wait. */
static void link_first(tram_future *future) {
    if (future->state != FUTURE_PENDING || future->waits != WAITS_FIRST)
        return;
    future->waits = WAITS_LIST_WITH_FIRST;
    list_append(&future->callbacks, &future->first.watch.ready.link);
}

/* It will never run. */
__attribute__((noinline)) static void discard_callback(struct done_callback *record) {
    tram_discard discard = record->discard;
    void *arg = record->arg;
    tram_future *future = record->watch.future;
    free_callback(record);
    if (future->waits == WAITS_NOBODY && !list_empty(&future->callbacks))
        future->waits = WAITS_LIST;
    if (discard)
        discard(arg);
}

/* Gives up the callbacks that wait in this list. */
__attribute__((noinline)) static void drop_callbacks(struct list *callbacks) {
    while (!list_empty(callbacks)) {
        struct future_watch *watch = watch_of(callbacks->next);
        list_remove(&watch->ready.link);
        if (!watch->embedded)
            discard_callback(callback_of(watch));
    }
}

static void report_run(tram_loop *loop, struct ready *ready) {
    tram_future *future = container_of(ready, tram_future, report);
    tram_exception exception = {
        .message = "future exception was never retrieved", .error = &future->error, .future = future, .fd = -1};
    tram__report(loop, &exception);
    tram__future_drop(future);
}

/* Nobody read the error, and nobody will: the handler hears of it, but not within what let go of the future. */
__attribute__((noinline)) static void report_unread(tram_future *future) {
    tram_loop *loop = future->loop;
    future->retrieved = true;
    future->references = 1;
    future->report.run = report_run;
    if (loop->closing || loop->closed)
        report_run(loop, &future->report);
    else
        loop_ready(loop, &future->report);
}

/* From now on what lies behind `holds` counts. */
static void hold_more(tram_future *future) {
    if (future->holds)
        return;
    future->holds = true;
    future->let_go = NULL;
    future->error = (tram_error){0};
    future->texts = NULL;
    future->texts_size = 0;
}

void tram__future_holds_value(tram_future *future, void (*let_go)(void *value)) {
    hold_more(future);
    future->let_go = let_go;
}

__attribute__((noinline)) static void give_back(tram_future *future) {
    if (future->let_go)
        future->let_go(future->value);
    raised_drop(future->loop, future->error.user);
    memory_put(&future->loop->allocator, future->texts, future->texts_size);
}

__attribute__((noinline)) static void end(tram_future *future) {
    if (unlikely(future->state == FUTURE_ERROR && !future->retrieved)) {
        if (!future->kind->report) {
            report_unread(future);
            return;
        }
        future->kind->report(future);
    }
    if (unlikely(future->state == FUTURE_PENDING)) {
        link_first(future);
        drop_callbacks(&future->callbacks);
    }
    if (unlikely(future->holds))
        give_back(future);
    if (future->kind->destroy)
        future->kind->destroy(future);
    if (future->kind->recycle)
        future->kind->recycle(future);
    else
        memory_put(&future->loop->allocator, future, future->size);
}

void tram__future_end(tram_future *future) {
    const struct future_kind *kind = future->kind;
    if (likely(future->state == FUTURE_RESULT && !future->holds && kind->recycle && !kind->destroy))
        kind->recycle(future);
    else
        end(future);
}

/* ---- Completion ---- */

static void report_failure(tram_future *future, int code, const void *function) {
    char name[128];
    tram_exception exception = {
        .message = "a done callback failed",
        .error = tram__raised(future->loop, code, "done callback"),
        .callback = tram_function_name(function, name, sizeof name),
        .future = future,
        .fd = -1,
    };
    tram__report(future->loop, &exception);
}

__attribute__((noinline)) static int call_timed(tram_future *future, tram_future_callback callback, void *arg) {
    tram_loop *loop = future->loop;
    uint64_t start = slow_begin(loop);
    int status = callback(future, arg);
    slow_end(loop, start, (const void *)(uintptr_t)callback, "done callback");
    return status;
}

static ALWAYS_INLINE void call_back(tram_loop *loop, tram_future *future, struct done_callback *record) {
    tram_future_callback callback = record->callback;
    void *arg = record->arg;
    if (unlikely(loop->closing)) {
        discard_callback(record);
    } else {
        free_callback(record);
        int status = likely(!loop->timed) ? callback(future, arg) : call_timed(future, callback, arg);
        if (unlikely(status < 0))
            report_failure(future, status, (const void *)(uintptr_t)callback);
    }
    tram__future_drop(future);
}

static void run_first(tram_loop *loop, struct ready *ready) {
    tram_future *future = container_of(ready, tram_future, first.watch.ready);
    KEEP_POINTER(future);
    call_back(loop, future, &future->first);
}

static void run_more(tram_loop *loop, struct ready *ready) {
    struct done_callback *record = container_of(ready, struct done_callback, watch.ready);
    call_back(loop, record->watch.future, record);
}

/* The queue holds the future of what a user waits with. */
static inline void hold_for(const struct future_watch *watch) {
    if (!watch->embedded)
        watch->future->references++;
}

static void queue_watch(struct future_watch *watch) {
    hold_for(watch);
    loop_ready(watch->future->loop, &watch->ready);
}

/* Nothing runs any more. */
__attribute__((noinline)) static void complete_at_end(tram_future *future, enum future_state state) {
    link_first(future);
    future->state = (uint8_t)state;
    tram__future_hold(future); /* a discard may let go of it */
    drop_callbacks(&future->callbacks);
    tram__future_drop(future);
}

static inline void complete(tram_future *future, enum future_state state) {
    tram_loop *loop = future->loop;
    struct list *callbacks = &future->callbacks;
    if (unlikely(loop->closed)) {
        complete_at_end(future, state);
        return;
    }
    future->state = (uint8_t)state;
    if (future->waits == WAITS_FIRST) {
        queue_watch(&future->first.watch);
        return;
    }
    if (list_empty(callbacks))
        return;
    for (struct list *link = callbacks->next; link != callbacks; link = link->next)
        hold_for(watch_of(link));
    loop_ready_all(loop, callbacks);
}

void tram__future_finish(tram_future *future, void *value) {
    if (future->state != FUTURE_PENDING)
        return;
    future->value = value;
    complete(future, FUTURE_RESULT);
}

void tram__future_finish_cancelled(tram_future *future) {
    if (future->state != FUTURE_PENDING)
        return;
    complete(future, FUTURE_CANCELLED);
}

/* ---- Errors: a copy with its texts and its causes in one block ---- */

static size_t text_size(const char *text) {
    return text ? strlen(text) + 1 : 0;
}

static size_t texts_size(const tram_error *error) {
    size_t size = text_size(error->operation) + text_size(error->detail);
    for (unsigned i = 0; i < error->cause_count; i++) {
        const tram_error *cause = error->causes[i];
        size += sizeof cause + sizeof *cause + text_size(cause->operation) + text_size(cause->detail);
    }
    return size;
}

static const char *copy_text(char **texts, const char *text) {
    if (!text)
        return NULL;
    char *copy = *texts;
    *texts = stpcpy(copy, text) + 1;
    return copy;
}

static tram_error copy_error(char **texts, const tram_error *error) {
    const char *operation = copy_text(texts, error->operation);
    return (tram_error){
        .code = error->code,
        .operation = operation ? operation : "future",
        .detail = copy_text(texts, error->detail),
        .user = error->user,
        .resolver_code = error->resolver_code,
        .option = error->option,
    };
}

static void keep_error(tram_future *future, const tram_error *error) {
    hold_more(future);
    raised_claim(future->loop, error->user);
    future->error = (tram_error){.code = error->code,
                                 .operation = "future",
                                 .user = error->user,
                                 .resolver_code = error->resolver_code,
                                 .option = error->option};
    size_t size = texts_size(error);
    void *block = size ? memory_get(&future->loop->allocator, size) : NULL;
    if (!block)
        return;
    future->texts = block;
    future->texts_size = size;
    /* What needs alignment comes first: the array of causes, the causes, then all texts. */
    unsigned count = error->cause_count;
    const tram_error **causes = block;
    tram_error *copies = (tram_error *)(void *)(causes + count);
    char *texts = (char *)(copies + count);
    future->error = copy_error(&texts, error);
    for (unsigned i = 0; i < count; i++) {
        copies[i] = copy_error(&texts, error->causes[i]); /* the causes of causes are not kept */
        causes[i] = &copies[i];
    }
    if (count) {
        future->error.causes = causes;
        future->error.cause_count = count;
    }
}

void tram__future_fail(tram_future *future, const tram_error *error) {
    if (future->state != FUTURE_PENDING)
        return;
    keep_error(future, error);
    complete(future, FUTURE_ERROR);
}

void tram__future_fail_code(tram_future *future, int code, const char *operation) {
    if (future->state != FUTURE_PENDING)
        return;
    future->error = (tram_error){.code = code, .operation = operation};
    complete(future, FUTURE_ERROR);
}

/* ---- The public face ---- */

int tram_loop_create_future(tram_loop *loop, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    return tram__future_new(loop, &plain_kind, sizeof(tram_future), ret_future);
}

tram_future *tram_future_hold(tram_future *future) {
    if (future_enter(future, __func__) == 0)
        future->references++;
    return future;
}

__attribute__((noinline)) static void release(tram_future *future, const char *function) {
    if (future && loop_enter(future->loop, function) == 0)
        tram__future_drop(future);
}

void tram_future_release(tram_future *future) {
    if (likely(future && loop_is_plain(future->loop)))
        tram__future_drop(future); /* which calls nobody, in general */
    else
        release(future, __func__);
}

tram_loop *tram_future_get_loop(const tram_future *future) {
    return future ? future->loop : NULL;
}

bool tram_future_done(const tram_future *future) {
    return future_enter(future, __func__) == 0 && future->state != FUTURE_PENDING;
}

bool tram_future_cancelled(const tram_future *future) {
    return future_enter(future, __func__) == 0 && future->state == FUTURE_CANCELLED;
}

/* Reading changes nothing but this. */
static void mark_retrieved(const tram_future *future) {
    ((tram_future *)(uintptr_t)future)->retrieved = true;
}

int tram_future_result(const tram_future *future, void **ret_value) {
    int status = future_enter(future, __func__);
    if (status)
        return status;
    switch ((enum future_state)future->state) {
    case FUTURE_PENDING:
        return TRAM_ESTATE;
    case FUTURE_RESULT:
        if (!ret_value)
            return 0;
        *ret_value = future->value;
        mark_retrieved(future);
        return 0;
    case FUTURE_ERROR:
        mark_retrieved(future);
        return future->error.code;
    case FUTURE_CANCELLED:
        break;
    }
    return TRAM_ECANCELLED;
}

/* The value of a future of this sort that has succeeded, or NULL. */
static void *value_of(const tram_future *future, enum future_value value, const char *function) {
    if (future_enter(future, function) || future->kind->value != value || future->state != FUTURE_RESULT)
        return NULL;
    mark_retrieved(future);
    return future->value;
}

tram_transport *tram_future_transport(const tram_future *future) {
    return value_of(future, FUTURE_VALUE_TRANSPORT, __func__);
}

tram_server *tram_future_server(const tram_future *future) {
    return value_of(future, FUTURE_VALUE_SERVER, __func__);
}

int tram_future_count(const tram_future *future, uint64_t *ret_count) {
    void *value;
    int status = future_enter(future, __func__);
    if (status)
        return status;
    if (future->kind->value != FUTURE_VALUE_COUNT)
        return TRAM_ETYPE;
    status = tram_future_result(future, &value);
    if (!status)
        *ret_count = (uintptr_t)value;
    return status;
}

int tram_future_set_user(tram_future *future, void *user) {
    int status = future_enter(future, __func__);
    if (!status)
        future->user = user;
    return status;
}

void *tram_future_user(const tram_future *future) {
    return future ? future->user : NULL;
}

const tram_error *tram_future_error(const tram_future *future) {
    if (future_enter(future, __func__) || future->state != FUTURE_ERROR)
        return NULL;
    mark_retrieved(future);
    return &future->error;
}

/* Only a future of the caller's own is the caller's to complete. */
static int may_set(tram_future *future, const char *function) {
    int status = future_enter_open(future, function);
    if (status)
        return status;
    if (future->kind != &plain_kind)
        return TRAM_ETYPE;
    return future->state == FUTURE_PENDING ? 0 : TRAM_ESTATE;
}

int tram_future_set_result(tram_future *future, void *value) {
    int status = may_set(future, __func__);
    if (status)
        return status;
    tram__future_finish(future, value);
    return 0;
}

int tram_future_set_error(tram_future *future, const tram_error *error) {
    int status = may_set(future, __func__);
    if (status)
        return status;
    if (!error || error->code >= 0 || (error->cause_count && !error->causes))
        return tram__invalid("error");
    tram__future_fail(future, error);
    return 0;
}

int tram_future_cancel(tram_future *future) {
    int status = future_enter(future, __func__);
    if (status)
        return status;
    future->retrieved = true; /* who cancels is not interested in an error */
    if (future->state != FUTURE_PENDING)
        return 0;
    if (future->kind->request)
        return future->kind->request(future);
    if (future->cancelling)
        return 1;
    future->cancelling = true;
    if (future->kind->cancel)
        future->kind->cancel(future);
    else
        tram__future_finish_cancelled(future);
    return 1;
}

static inline void add_watch(tram_future *future, struct future_watch *watch) {
    if (future->state != FUTURE_PENDING) {
        queue_watch(watch);
        return;
    }
    link_first(future); /* it is before this one */
    if (future->waits == WAITS_NOBODY)
        future->waits = WAITS_LIST;
    list_append(&future->callbacks, &watch->ready.link);
}

void tram__future_watch(tram_future *future, struct future_watch *watch, void (*run)(tram_loop *, struct ready *)) {
    *watch = (struct future_watch){.ready.run = run, .future = future, .embedded = true};
    add_watch(future, watch);
}

static inline void fill_callback(struct done_callback *record, tram_future *future, tram_future_callback callback,
                                 void *arg, tram_discard discard) {
    record->watch.ready.run = record == &future->first ? run_first : run_more;
    record->watch.future = future;
    record->watch.embedded = false;
    record->callback = callback;
    record->arg = arg;
    record->discard = discard;
}

__attribute__((noinline)) static int add_callback(tram_future *future, tram_future_callback callback, void *arg,
                                                  tram_discard discard, const char *function) {
    int status = future_enter_open(future, function);
    if (unlikely(status))
        return status;
    if (unlikely(!callback))
        return tram__invalid("callback");
    struct done_callback *record = new_callback(future);
    if (unlikely(!record))
        return -ENOMEM;
    fill_callback(record, future, callback, arg, discard);
    list_init(&record->watch.ready.link);
    if (record != &future->first) {
        add_watch(future, &record->watch);
        return 0;
    }
    future->waits = WAITS_FIRST;
    if (future->state != FUTURE_PENDING)
        queue_watch(&record->watch);
    return 0;
}

int tram_future_add_done_callback(tram_future *future, tram_future_callback callback, void *arg) {
    /* The usual way, which calls nobody. */
    if (likely(future && callback && future->state == FUTURE_PENDING && future->waits == WAITS_NOBODY &&
               loop_is_plain(future->loop))) {
        future->waits = WAITS_FIRST;
        fill_callback(&future->first, future, callback, arg, NULL);
        return 0;
    }
    return add_callback(future, callback, arg, NULL, __func__);
}

int tram_future_add_done_callback_with_discard(tram_future *future, tram_future_callback callback, void *arg,
                                               tram_discard discard) {
    return add_callback(future, callback, arg, discard, __func__);
}

int tram_future_remove_done_callback(tram_future *future, tram_future_callback callback, void *arg) {
    int status = future_enter(future, __func__);
    if (status)
        return status;
    struct list removed; /* a discard may remove others */
    int count = 0;
    list_init(&removed);
    link_first(future);
    for (struct list *link = future->callbacks.next, *next; link != &future->callbacks; link = next) {
        next = link->next;
        struct done_callback *record = callback_of(watch_of(link));
        if (record->watch.embedded || record->callback != callback || record->arg != arg)
            continue;
        list_remove(link);
        list_append(&removed, link);
        count++;
    }
    if (count) {
        tram__future_hold(future); /* a discard may let go of it */
        drop_callbacks(&removed);
        tram__future_drop(future);
    }
    return count;
}

static void unhook_queued(struct list *queue, tram_future *future, tram_future_callback callback, void *arg) {
    for (struct list *link = queue->next, *next; link != queue; link = next) {
        next = link->next;
        struct done_callback *record = callback_of(watch_of(link));
        if ((record->watch.ready.run != run_first && record->watch.ready.run != run_more) ||
            record->watch.future != future || record->callback != callback || record->arg != arg)
            continue;
        list_remove(link);
        free_callback(record);
        tram__future_drop(future);
    }
}

void tram__future_unhook(tram_future *future, tram_future_callback callback, void *arg) {
    tram_loop *loop = future->loop;
    tram_future_hold(future);
    tram_future_remove_done_callback(future, callback, arg);
    unhook_queued(&loop->ready, future, callback, arg);
    unhook_queued(&loop->batch, future, callback, arg);
    tram__future_drop(future);
}

/* ---- Running a loop until a future is done ---- */

static int stop_when_done(tram_future *future, void *arg) {
    (void)arg;
    tram_future_get_loop(future)->stopping = true;
    return 0;
}

int tram_loop_run_until_complete(tram_loop *loop, tram_future *future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!future)
        return tram__invalid("future");
    if (loop->running || tram_loop_running() || tram_future_get_loop(future) != loop)
        return TRAM_ESTATE;
    status = tram_future_add_done_callback(future, stop_when_done, NULL);
    if (status)
        return status;
    tram_future_hold(future);
    status = tram_loop_run_forever(loop);
    /* Where another stop ended the run in the tick that completed it, the callback is queued still. */
    tram__future_unhook(future, stop_when_done, NULL);
    if (!status)
        status = tram_future_result(future, NULL);
    tram_future_release(future);
    return status;
}
