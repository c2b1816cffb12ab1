#include "transports/connect/retry.h"

#include <errno.h>
#include <netdb.h>
#include <sys/random.h>

#include "core/base/invalid.h"
#include "core/base/limits.h"

const char *tram__retry_wrong_option(const tram_retry_options *options) {
    if (!options->limit && (options->delay_ns || options->delay_max_ns))
        return "retry.limit";
    if (options->delay_max_ns && options->delay_max_ns < options->delay_ns)
        return "retry.delay_max_ns";
    return reserved_used(options) ? "retry.reserved" : NULL;
}

void tram__retry_init(struct retry *retry, const tram_retry_options *options) {
    uint64_t delay_ns = options->delay_ns ? options->delay_ns : TRAM_CONNECT_AGAIN_NS;
    uint64_t max_ns = options->delay_max_ns ? options->delay_max_ns : TRAM_CONNECT_AGAIN_MAX_NS;
    *retry = (struct retry){.left = options->limit, .delay_ns = delay_ns, .delay_max_ns = max_ns};
    if (max_ns < delay_ns)
        retry->delay_max_ns = delay_ns;
}

/* Time mends it; for good is what the caller has mistaken, and want of memory must be told. */
static bool passes(const tram_error *error) {
    switch (error->code) {
    case -ENOMEM:
    case TRAM_ESTATE: /* the loop has no resolver any more */
    case TRAM_EVALUE:
    case TRAM_ECANCELLED:
        return false;
    default:
        switch (error->resolver_code) {
        case EAI_BADFLAGS:
        case EAI_FAMILY:
        case EAI_SOCKTYPE:
        case EAI_SERVICE:
            return false;
        default:
            return true;
        }
    }
}

/* Between a half and all of it. Where chance is not to be had, all of it. */
static uint64_t shortened(uint64_t ns) {
    uint64_t chance;
    if (getrandom(&chance, sizeof chance, GRND_NONBLOCK) != sizeof chance)
        return ns;
    return ns - chance % (ns / 2 + 1);
}

bool tram__retry_next(struct retry *retry, const tram_error *error, uint64_t *ret_delay_ns) {
    if (!retry->left || !passes(error))
        return false;
    if (retry->left != TRAM_RETRY_FOREVER)
        retry->left--;
    *ret_delay_ns = shortened(retry->delay_ns);
    bool doubles = retry->delay_ns <= retry->delay_max_ns / 2;
    retry->delay_ns = doubles ? retry->delay_ns * 2 : retry->delay_max_ns;
    return true;
}
