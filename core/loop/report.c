/*
 * What becomes of errors that nobody waits for: they make a record, the record goes to the exception handler,
 * and the default handler makes one log line of it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/hash.h"
#include "core/base/invalid.h"
#include "core/base/probes.h"
#include "core/loop/loop.h"
#include "core/loop/report.h"

/* A line longer than this is cut. */
#define LOG_LINE 2048

/* Enough for "module+0x1234". */
#define FUNCTION_NAME 128

static _Thread_local tram_loop *logging_loop;

/* ---- Text ---- */

struct line {
    size_t used;
    char text[LOG_LINE];
};

static void line_add(struct line *line, const char *format, ...) TRAM_PRINTF(2, 3);
static void line_add_list(struct line *line, const char *format, va_list list) TRAM_PRINTF(2, 0);

static void line_add_list(struct line *line, const char *format, va_list list) {
    size_t room = sizeof line->text - line->used;
    int length = vsnprintf(line->text + line->used, room, format, list);
    if (length > 0)
        line->used += (size_t)length < room ? (size_t)length : room - 1;
}

static void line_add(struct line *line, const char *format, ...) {
    va_list list;
    va_start(list, format);
    line_add_list(line, format, list);
    va_end(list);
}

/* ---- At most so many lines ---- */

/* Never 0, which is no site. */
static uint64_t hash_of(const char *text) {
    return hash_text(text) | 1;
}

/* The last place is for all that find none of their own. */
static struct log_site *site_of(struct log_limiter *limiter, uint64_t hash) {
    struct log_site *site = limiter->sites;
    while (site < limiter->sites + TRAM_LOG_SITES - 1 && site->hash && site->hash != hash)
        site++;
    site->hash = hash;
    return site;
}

/* The log function may call what logs again, of another loop even. */
static void call_log(tram_loop *loop, tram_log_level level, const char *line) {
    tram_loop *outer = logging_loop;
    logging_loop = loop;
    loop->log(loop->log_arg, level, line);
    logging_loop = outer;
}

tram_loop *tram_log_loop(void) {
    return logging_loop;
}

static void tell_left_out(tram_loop *loop, const struct log_site *site) {
    struct line line;
    line.used = 0;
    line_add(&line, "%u more lines within a second were left out, such as: %s", (unsigned)site->left_out, site->sample);
    call_log(loop, (tram_log_level)site->level, line.text);
}

void tram__log_flush(tram_loop *loop) {
    struct log_limiter *limiter = &loop->log_limiter;
    deadline_cancel(loop, &limiter->deadline);
    limiter->timed = false;
    for (size_t i = 0; i < TRAM_LOG_SITES && limiter->sites[i].hash; i++) {
        if (limiter->sites[i].left_out && loop->log)
            tell_left_out(loop, &limiter->sites[i]);
        limiter->sites[i] = (struct log_site){0};
    }
}

static void second_over(tram_loop *loop, struct deadline *deadline) {
    (void)deadline;
    tram__log_flush(loop);
}

static void leave_out(tram_loop *loop, struct log_site *site) {
    struct log_limiter *limiter = &loop->log_limiter;
    site->left_out++;
    limiter->deadline.expire = second_over;
    if (!limiter->timed && !loop->closed)
        limiter->timed = tram__deadline_start(loop, &limiter->deadline, limiter->began_ns + 1000000000u) == 0;
}

/* Where the line is to be remembered, or NULL: it is left out. A call on the wrong thread, which no peer makes, is not
 * bounded: the loop's thread counts. */
static bool may_log(tram_loop *loop, tram_log_level level, const char *key, struct log_site **ret_site) {
    struct log_limiter *limiter = &loop->log_limiter;
    *ret_site = NULL;
    if (loop->owned && !pthread_equal(loop->owner, pthread_self()))
        return true;
    uint64_t now = tram__clock(loop);
    if (now - limiter->began_ns >= 1000000000u) {
        tram__log_flush(loop);
        limiter->began_ns = now;
    }
    struct log_site *site = site_of(limiter, hash_of(key));
    if (site->lines == TRAM_LOG_PER_SECOND) {
        leave_out(loop, site);
        return false;
    }
    site->lines++;
    site->level = level;
    *ret_site = site;
    return true;
}

static void remember(struct log_site *site, const struct line *line) {
    if (site)
        snprintf(site->sample, sizeof site->sample, "%.*s", TRAM_LOG_SAMPLE - 1, line->text);
}

/* Texts may come from a peer: they must not be able to forge another line. */
static void line_send(tram_loop *loop, tram_log_level level, struct line *line) {
    for (size_t i = 0; i < line->used; i++) {
        unsigned char c = (unsigned char)line->text[i];
        if (c < ' ' || c == 0x7f)
            line->text[i] = ' ';
    }
    call_log(loop, level, line->text);
}

void tram__log(tram_loop *loop, tram_log_level level, const char *format, ...) {
    struct log_site *site;
    if (!loop->log || !may_log(loop, level, format, &site))
        return;
    struct line line;
    line.used = 0;
    va_list list;
    va_start(list, format);
    line_add_list(&line, format, list);
    va_end(list);
    line_send(loop, level, &line);
    remember(site, &line);
}

/* "2026-11-26T14:25:03.217Z tram-1 warning: ": a worker's thread is called by its number. */
static void write_prefix(tram_log_level level, char *text, size_t size) {
    static const char *const levels[] = {"debug: ", "warning: ", "error: "};
    char thread[16] = "", date[32] = "";
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    if (gmtime_r(&now.tv_sec, &parts))
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
    pthread_getname_np(pthread_self(), thread, sizeof thread);
    snprintf(text, size, "%s.%03dZ %s %s", date, (int)(now.tv_nsec / 1000000), thread,
             (unsigned)level < sizeof levels / sizeof *levels ? levels[level] : "");
}

void tram_log_to_stderr(void *arg, tram_log_level level, const char *line) {
    (void)arg;
    int saved = errno;
    char prefix[80];
    write_prefix(level, prefix, sizeof prefix);
    struct iovec pieces[] = {
        {.iov_base = prefix, .iov_len = strlen(prefix)},
        {.iov_base = (void *)(uintptr_t)line, .iov_len = strlen(line)},
        {.iov_base = (void *)(uintptr_t) "\n", .iov_len = 1},
    };
    /* One call, so that lines of several threads do not mix. Where it fails there is nobody to tell. */
    ssize_t written = writev(STDERR_FILENO, pieces, 3);
    (void)written;
    errno = saved;
}

const char *tram_function_name(const void *function, char *text, size_t size) {
    Dl_info info = {0};
    dladdr(function, &info);
    if (info.dli_fname) {
        /* The nearest symbol may be another function than a static one; only an exact match is its name. */
        if (info.dli_sname && info.dli_saddr == function)
            return info.dli_sname;
        const char *slash = strrchr(info.dli_fname, '/');
        snprintf(text, size, "%s+%#" PRIxPTR, slash ? slash + 1 : info.dli_fname,
                 (uintptr_t)function - (uintptr_t)info.dli_fbase);
    } else {
        snprintf(text, size, "%p", function);
    }
    return text;
}

/* ---- Errors ---- */

void tram__error_keep(struct kept_error *kept, const tram_error *error) {
    /* The detail first: it may be the one that is kept here already. */
    if (error->detail) {
        size_t length = strnlen(error->detail, sizeof kept->detail - 1);
        memmove(kept->detail, error->detail, length);
        kept->detail[length] = '\0';
    }
    bool has_detail = error->detail;
    kept->error = *error;
    kept->error.detail = has_detail ? kept->detail : NULL;
}

int tram_loop_raise(tram_loop *loop, int code, void *user, const char *detail) {
    int status = loop_enter(loop, __func__);
    if (status)
        return status;
    if (code >= 0)
        code = TRAM_EUSER; /* who raises means to fail */
    tram_error error = {.code = code, .operation = "raise", .detail = detail, .user = user};
    tram__error_keep(&loop->raised, &error);
    loop->raised_set = true;
    return code;
}

const tram_error *tram__raised(tram_loop *loop, int code, const char *operation) {
    if (!loop->raised_set || loop->raised.error.code != code)
        loop->raised.error = (tram_error){.code = code};
    loop->raised.error.operation = operation;
    loop->raised_set = false;
    return &loop->raised.error;
}

/* ---- The exception handler ---- */

static void line_add_error(struct line *line, const char *title, const tram_error *error) {
    line_add(line, "; %s: %s (%s)", title, tram_error_name(error->code), tram_error_text(error->code));
    if (error->operation)
        line_add(line, " in %s", error->operation);
    if (error->detail)
        line_add(line, ": %s", error->detail);
    if (error->user)
        line_add(line, "; user: %p", error->user);
}

static void line_add_record(struct line *line, const tram_exception *exception) {
    line_add(line, "%s", exception->message ? exception->message : "Unhandled error in event loop");
    if (exception->error) {
        line_add_error(line, "error", exception->error);
        for (unsigned i = 0; i < exception->error->cause_count; i++)
            line_add_error(line, "cause", exception->error->causes[i]);
    }
    if (exception->callback)
        line_add(line, "; callback: %s", exception->callback);
    if (exception->handle.slot || exception->handle.generation)
        line_add(line, "; handle: %" PRIu32 ".%" PRIu32, exception->handle.slot, exception->handle.generation);
    if (exception->transport)
        line_add(line, "; transport: %p", (void *)exception->transport);
    if (exception->protocol)
        line_add(line, "; protocol: %p", (void *)exception->protocol);
    if (exception->server)
        line_add(line, "; server: %p", (void *)exception->server);
    if (exception->future)
        line_add(line, "; future: %p", (void *)exception->future);
    if (exception->fd >= 0)
        line_add(line, "; fd: %d", exception->fd);
}

/* The default handler: one entry at error level (L-28). `context`: the record whose handling failed. */
static void report_to_log(tram_loop *loop, const tram_exception *exception, const tram_exception *context) {
    struct log_site *site;
    const char *key = exception->message ? exception->message : "";
    if (!loop->log || !may_log(loop, TRAM_LOG_ERROR, key, &site))
        return;
    struct line line;
    line.used = 0;
    line_add_record(&line, exception);
    if (context) {
        line_add(&line, "; while handling: ");
        line_add_record(&line, context);
    }
    line_send(loop, TRAM_LOG_ERROR, &line);
    remember(site, &line);
}

void tram__report(tram_loop *loop, const tram_exception *exception) {
    stats_add(&loop->stats.exceptions, 1);
    /* A record that comes up inside the handler goes past it, or it might never end (L-29). */
    if (!loop->exception_handler || loop->in_exception_handler) {
        report_to_log(loop, exception, NULL);
        return;
    }
    /* The handler may raise, so an error that lies where the loop keeps what was raised must move. */
    struct kept_error kept;
    tram_exception record = *exception;
    if (record.error == &loop->raised.error) {
        tram__error_keep(&kept, record.error);
        record.error = &kept.error;
    }
    tram_exception_handler handler = loop->exception_handler;
    loop->in_exception_handler = true;
    int status = handler(loop, &record, loop->exception_arg);
    loop->in_exception_handler = false;
    if (status >= 0)
        return;
    char name[FUNCTION_NAME];
    tram_exception failure = {
        .message = "Unhandled error in exception handler",
        .error = tram__raised(loop, status, "exception_handler"),
        .callback = tram_function_name((const void *)(uintptr_t)handler, name, sizeof name),
        .fd = -1,
    };
    report_to_log(loop, &failure, &record);
}

/* The function that the user knows, where one of tram's ran for it. */
static const void *user_function(const tram_loop *loop, const void *function) {
    bool ours = loop->stand_in && function == (const void *)(uintptr_t)loop->stand_in;
    return ours ? loop->stands_for : function;
}

void tram__report_callback(tram_loop *loop, int code, const void *function, const char *message, tram_handle handle) {
    char name[FUNCTION_NAME];
    tram_exception exception = {
        .message = message,
        .error = tram__raised(loop, code, "callback"),
        .handle = handle,
        .callback = tram_function_name(user_function(loop, function), name, sizeof name),
        .fd = -1,
    };
    tram__report(loop, &exception);
}

int tram_loop_call_exception_handler(tram_loop *loop, const tram_exception *exception) {
    int status = loop_enter(loop, __func__);
    if (status)
        return status;
    if (!exception)
        return tram__invalid("exception");
    tram__report(loop, exception);
    return 0;
}

/* ---- Calls that may not be made, and slow callbacks ---- */

int tram__loop_enter_slow(const tram_loop *loop, const char *function) {
    if (loop_guard(loop) == GUARD_FORKED)
        return -ECHILD;
    if (!loop->debug || !loop->owned || pthread_equal(loop->owner, pthread_self()))
        return 0;
    tram_error error = {.code = TRAM_ESTATE, .operation = function, .detail = "the loop belongs to another thread"};
    tram_exception exception = {.message = "a call was made on the wrong thread", .error = &error, .fd = -1};
    tram__report((tram_loop *)(uintptr_t)loop, &exception);
    return TRAM_ESTATE;
}

int tram__loop_enter_open_slow(const tram_loop *loop, const char *function) {
    int status = tram__loop_enter_slow(loop, function);
    return !status && loop->closed ? TRAM_ESTATE : status;
}

void tram__slow_callback(tram_loop *loop, uint64_t start_ns, const void *function, const char *what) {
    uint64_t took = tram__clock(loop) - start_ns;
    if (took < loop->slow_callback_ns)
        return;
    char text[FUNCTION_NAME];
    function = user_function(loop, function);
    stats_add(&loop->stats.slow_callbacks, 1);
    tram__slow_sites_add(&loop->slow_sites, what, function, took);
    PROBE4(slow_callback, loop, function, what, took);
    if (!loop->debug)
        return;
    tram__log(loop, TRAM_LOG_WARNING, "slow %s: %s took %llu.%03llu s", what,
              tram_function_name(function, text, sizeof text), (unsigned long long)(took / 1000000000u),
              (unsigned long long)(took / 1000000u % 1000u));
}
