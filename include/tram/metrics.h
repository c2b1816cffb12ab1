/*
 * The statistics of loops, runtimes and servers as text for Prometheus (exposition format 0.0.4).
 *
 * What is told of a loop: the counters of tram_stats, the lag as a histogram (where it is measured, tram/stats.h), and
 * the callbacks that were slow. Names begin with tram_ and end in their unit, and in _total where they only rise; times
 * are in seconds. Nothing is started by this: who wants the text asks for it, and sends it where it is wanted, with
 * TRAM_METRICS_CONTENT_TYPE. tram-echo --metrics is an example.
 *
 *     tram_metrics_source sources[] = {{.runtime = runtime}, {.server = server, .name = "web"}};
 *     ptrdiff_t size = tram_metrics_render(sources, 2, text, sizeof text);
 *
 * Metrics of your own may follow in the same answer, under other names.
 */
#ifndef TRAM_METRICS_H
#define TRAM_METRICS_H

#include <tram/runtime.h>

TRAM_BEGIN_DECLS

#define TRAM_METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/*
 * Something to tell of: one of the first three, the others NULL; it must live as long as the call. No two may lead to
 * the same labels. A name may be any text: what is not UTF-8 in it is replaced.
 */
typedef struct tram_metrics_source {
    const tram_loop *loop;             /* label loop="name"; without a name no label */
    const tram_runtime *runtime;       /* every worker: labels worker="0" …, and runtime="name" if it has one */
    const tram_runtime_server *server; /* labels server="name" (the address it is bound to if it has none), worker */
    const char *name;                  /* NULL: none */
    uintptr_t reserved[2];             /* must be 0 */
} tram_metrics_source;

/* Takes a piece of the text, which is not ended by a zero. A negative code ends the rendering. */
typedef int (*tram_metrics_append)(void *arg, const char *text, size_t size);

/*
 * Renders into pieces. 0, what `append` failed with, or TRAM_EVALUE for a source that is none; nothing was appended
 * then. All sources must be in one call: the format wants the samples of one name together. Allocates nothing. Any
 * thread, while the loops run; what they count meanwhile may be in the text or not, and no counter ever falls.
 */
TRAM_API int tram_metrics_write(const tram_metrics_source *sources, size_t count, tram_metrics_append append,
                                void *arg);

/*
 * The same into memory of yours, ended by a zero if there is any. Returns the size of the whole text without the zero:
 * if that is not below `size` the text was cut, and is no use. Ask again with more room, and a little to spare, since
 * numbers grow. TRAM_EVALUE as above.
 */
TRAM_API ptrdiff_t tram_metrics_render(const tram_metrics_source *sources, size_t count, char *text, size_t size);

TRAM_END_DECLS

#endif
