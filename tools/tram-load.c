/* tram-load: loads an echo server from all cores, checks what comes back, and tells how long it took. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tram/tram.h>

#include "load/report.h"
#include "support/arguments.h"
#include "support/descriptors.h"

enum {
    EXIT_WRONG_DATA = 3,
    EXIT_UNREACHABLE = 4,
    EXIT_ERRORS = 5,
};

static load_plan plan = {
    .host = "127.0.0.1",
    .port = 7000,
    .connections = 50,
    .size = 64,
    .pipeline = 1,
    .duration_s = 10,
    .timeout_ms = 5000,
};

static const argument_spec arguments[] = {
    {"--host", "H", "the target's address or name (127.0.0.1)", ARGUMENT_TEXT, &plan.host, 0, 0, NULL},
    {"--port", "P", "the target's port (7000)", ARGUMENT_COUNT, &plan.port, 1, 65535, NULL},
    {"--connections", "C", "connections at a time (50)", ARGUMENT_COUNT, &plan.connections, 1, 1000000, NULL},
    {"--size", "BYTES", "bytes per request (64)", ARGUMENT_COUNT, &plan.size, 1, 1 << 30, NULL},
    {"--pipeline", "D", "requests in flight per connection, at most (1)", ARGUMENT_COUNT, &plan.pipeline, 1, 4096,
     NULL},
    {"--duration", "S", "seconds to measure (10)", ARGUMENT_REAL, &plan.duration_s, 0.001, 1e6, NULL},
    {"--warmup", "S", "seconds of load before that (0)", ARGUMENT_REAL, &plan.warmup_s, 0, 1e6, NULL},
    {"--workers", "N", "threads; 0: the CPUs this process may use (0)", ARGUMENT_COUNT, &plan.workers, 0, 1024, NULL},
    {"--rate", "R", "open loop: requests per second, of all connections together", ARGUMENT_REAL, &plan.rate, 0.001,
     1e8, NULL},
    {"--churn", NULL, "connect, send one request and close, again and again", ARGUMENT_FLAG, &plan.churn, 0, 0, NULL},
    {"--reconnect", NULL, "when the target ends a connection in good order, connect anew and repeat what has no answer",
     ARGUMENT_FLAG, &plan.reconnect, 0, 0, NULL},
    {"--timeout-ms", "N", "to connect, and for the first answer (5000)", ARGUMENT_COUNT, &plan.timeout_ms, 1, 3600000,
     NULL},
    {"--tls", NULL, "speak TLS", ARGUMENT_FLAG, &plan.tls, 0, 0, NULL},
    {"--ca", "FILE", "the CA of the target's certificate (the system's)", ARGUMENT_TEXT, &plan.tls_setup.ca, 0, 0,
     NULL},
    {"--insecure", NULL, "take any certificate", ARGUMENT_FLAG, &plan.tls_setup.insecure, 0, 0, NULL},
    {"--cert", "FILE", "the client's certificate (none)", ARGUMENT_TEXT, &plan.tls_setup.certificate, 0, 0, NULL},
    {"--key", "FILE", "its key (in the same file)", ARGUMENT_TEXT, &plan.tls_setup.key, 0, 0, NULL},
    {"--alpn", "NAME", "the protocol to offer", ARGUMENT_TEXT, &plan.tls_setup.alpn, 0, 0, NULL},
    {"--resume", NULL, "go on with the session of an earlier connection", ARGUMENT_FLAG, &plan.resume, 0, 0, NULL},
    {"--json", NULL, "print the report as one JSON object", ARGUMENT_FLAG, &plan.json, 0, 0, NULL},
};

static const program_info this_program = {
    .name = "tram-load",
    .summary = "Loads a TCP echo server and checks every byte that comes back.",
    .notes = "Without --rate (closed loop) every connection keeps D requests in flight. With --rate (open loop)\n"
             "requests are due at a constant rate: the response time counts from the moment a request was due,\n"
             "however late it was sent, the service time from the moment it was sent. With --churn latency is "
             "the\n"
             "whole cycle from connect to close.\n\n"
             "The measurement starts when all connections gave a first answer, or failed. A lost connection "
             "stays\n"
             "lost, unless --reconnect is given and it ended in good order, between two answers: requests that it\n"
             "left open are sent again on the next, and count from when they were sent first.\n"
             "SIGINT and SIGTERM end the measurement early, with the report.\n\n"
             "exit codes: 0 all is well, 1 runtime trouble, 2 bad usage, 3 wrong data came back,\n"
             "4 no connection could be made, 5 there were other errors (connections lost, answers missing)",
    .arguments = arguments,
    .argument_count = sizeof(arguments) / sizeof(arguments[0]),
};

static bool plan_makes_sense(void) {
    if (plan.host[0] == '\0') {
        complain(&this_program, "--host: \"\" is no host");
        return false;
    }
    const tls_client_setup *tls = &plan.tls_setup;
    if (!plan.tls && (tls->ca != NULL || tls->insecure || tls->certificate != NULL || tls->key != NULL ||
                      tls->alpn != NULL || plan.resume)) {
        complain(&this_program, "--ca, --insecure, --cert, --key, --alpn and --resume go with --tls");
        return false;
    }
    if (tls->key != NULL && tls->certificate == NULL) {
        complain(&this_program, "--key: of which --cert?");
        return false;
    }
    if (plan.churn && plan.reconnect) {
        complain(&this_program, "--reconnect: with --churn each request has a connection of its own");
        return false;
    }
    if (plan.churn && plan.pipeline > 1) {
        complain(&this_program, "--pipeline: a connection of --churn has one request");
        return false;
    }
    return true;
}

/* Some more for the loops, the standard streams and the resolver. */
static bool descriptors_suffice(void) {
    uint64_t wanted = plan.connections + 64 + 8 * 1024;
    uint64_t needed = plan.connections + 64;
    uint64_t allowed = descriptors_allow(wanted);
    if (allowed < needed) {
        complain(&this_program,
                 "--connections: %" PRIu64 " connections need %" PRIu64
                 " descriptors, and this process may have %" PRIu64 " (see ulimit -Hn)",
                 plan.connections, needed, allowed);
        return false;
    }
    return true;
}

static void warn(const load_run *run) {
    const load_tally *total = load_run_total(run);
    char text[LOAD_TEXT_SIZE];
    if (load_generator_limit(&plan, run, text, sizeof(text)) != NULL) {
        complain(&this_program, "WARNING: the load generator itself was the limit: %s.", text);
        complain(&this_program, "WARNING: the target may be faster than these figures: lower the rate, or give "
                                "tram-load more or other CPUs.");
    }
    if (total->missed > 0) {
        complain(&this_program,
                 "WARNING: %" PRIu64 " of %" PRIu64 " requests were never sent: the target did not keep up "
                 "with the rate, and they are in no percentile.",
                 total->missed, total->scheduled);
    }
    if (plan.json && total->first_wrong[0] != '\0') {
        complain(&this_program, "wrong data: %s", total->first_wrong);
    } else if (plan.json && total->first_error[0] != '\0') {
        complain(&this_program, "first error: %s", total->first_error);
    }
}

static bool is_unreachable(const load_run *run) {
    const load_tally *total = load_run_total(run);
    return total->connected == 0 && load_tally_error_count(total) > 0;
}

static void complain_unreachable(const load_run *run) {
    bool ipv6 = strchr(plan.host, ':') != NULL;
    complain(&this_program, "cannot connect to %s%s%s:%" PRIu64 ": %s", ipv6 ? "[" : "", plan.host, ipv6 ? "]" : "",
             plan.port, load_run_total(run)->first_error);
}

static int exit_code(const load_run *run) {
    const load_tally *total = load_run_total(run);
    if (total->errors[LOAD_WRONG_DATA] > 0) {
        return EXIT_WRONG_DATA;
    }
    if (load_tally_error_count(total) == 0) {
        return EXIT_SUCCESS;
    }
    return is_unreachable(run) ? EXIT_UNREACHABLE : EXIT_ERRORS;
}

static int report(const load_run *run) {
    if (plan.json) {
        load_report_json(stdout, &plan, run);
    } else if (is_unreachable(run)) {
        complain_unreachable(run);
    } else {
        load_report_text(stdout, &plan, run);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        complain(&this_program, "cannot write to standard output: %s", strerror(errno));
        return EXIT_RUNTIME_TROUBLE;
    }
    warn(run);
    return exit_code(run);
}

int main(int argc, char **argv) {
    switch (arguments_parse(&this_program, argc, argv)) {
    case ARGUMENTS_SHOWN:
        return EXIT_SUCCESS;
    case ARGUMENTS_WRONG:
        return EXIT_BAD_USAGE;
    case ARGUMENTS_RUN:
        break;
    }
    if (!plan_makes_sense()) {
        return EXIT_BAD_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    if (!descriptors_suffice()) {
        return EXIT_RUNTIME_TROUBLE;
    }
    if (plan.tls && tls_client_configure(&this_program, &plan.tls_setup, &plan.tls_config) < 0) {
        return EXIT_BAD_USAGE;
    }
    load_run *run = NULL;
    int code = load_run_new(&plan, isatty(STDERR_FILENO) == 1, &run);
    if (code == 0) {
        code = load_run_execute(run);
    }
    int status = EXIT_RUNTIME_TROUBLE;
    if (code < 0) {
        complain(&this_program, "cannot run: %s", tram_error_text(code));
    } else {
        status = report(run);
    }
    if (run != NULL) {
        load_run_free(run);
    }
    tls_config_release(plan.tls_config);
    return status;
}
