#include "load/report.h"

#include <inttypes.h>
#include <string.h>

/* A worker that computes for more than this part of the time had no time to wait, and so to be punctual. */
static const double SATURATED = 0.95;

/* More late requests than this are no accident. */
static const double TOO_LATE = 0.01;

static const double MIB = 1024 * 1024;

/* ---- Figures ---- */

static double requests_per_second(const load_tally *tally) {
    return tally->duration_s > 0 ? (double)tally->in_time / tally->duration_s : 0;
}

static double cpu_part(const load_tally *tally) {
    return tally->duration_s > 0 ? tally->cpu_s / tally->duration_s : 0;
}

const char *load_generator_limit(const load_plan *plan, const load_run *run, char *text, size_t size) {
    const load_tally *total = load_run_total(run);
    if (load_plan_is_open(plan) && (double)total->late > TOO_LATE * (double)total->scheduled) {
        snprintf(text, size, "%" PRIu64 " of %" PRIu64 " requests (%.1f %%) were sent more than 1 ms late", total->late,
                 total->scheduled, 100.0 * (double)total->late / (double)total->scheduled);
        return text;
    }
    for (unsigned i = 0; i < load_run_workers(run); i++) {
        double part = cpu_part(load_run_tally(run, i));
        if (part > SATURATED) {
            snprintf(text, size, "worker %u used %.0f %% of a CPU", i, 100 * part);
            return text;
        }
    }
    return NULL;
}

/* ---- For people ---- */

static void print_times(FILE *out, const char *title, const histogram *times) {
    static const double percents[] = {50, 90, 99, 99.9};
    fprintf(out, "%-14s", title);
    for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
        fprintf(out, "p%-4g %-10.3f ", percents[i], (double)histogram_percentile(times, percents[i]) / 1e6);
    }
    fprintf(out, "max %-10.3f mean %.3f ms\n", (double)times->maximum / 1e6, histogram_mean(times) / 1e6);
}

static void print_setup(FILE *out, const load_plan *plan, const load_run *run) {
    const load_tally *total = load_run_total(run);
    bool ipv6 = strchr(plan->host, ':') != NULL;
    fprintf(out, "%-14s%s%s%s:%" PRIu64 ", ", "target", ipv6 ? "[" : "", plan->host, ipv6 ? "]" : "", plan->port);
    if (load_plan_is_open(plan)) {
        fprintf(out, "open loop at %g requests/s", plan->rate);
    } else {
        fprintf(out, "closed loop");
    }
    if (plan->churn) {
        fprintf(out, ", a connection per request, %" PRIu64 " at a time", plan->connections);
    } else {
        fprintf(out, ", %" PRIu64 " connections x %" PRIu64 " in flight", plan->connections, plan->pipeline);
    }
    if (plan->tls) {
        fprintf(out, ", TLS%s", plan->resume ? ", resumed" : "");
    }
    fprintf(out, ", %" PRIu64 " bytes, %u worker%s\n", plan->size, load_run_workers(run),
            load_run_workers(run) == 1 ? "" : "s");
    fprintf(out, "%-14s", "measured");
    if (total->duration_s > 0) {
        fprintf(out, "%.3f s", total->duration_s);
    } else {
        fprintf(out, "nothing");
    }
    fprintf(out, "%s\n", load_run_interrupted(run) ? ", ended by a signal" : "");
}

static void print_errors(FILE *out, const load_tally *total) {
    fprintf(out, "%-14s", "errors");
    if (load_tally_error_count(total) == 0) {
        fprintf(out, "none\n");
        return;
    }
    const char *comma = "";
    for (unsigned kind = 0; kind < LOAD_ERROR_KINDS; kind++) {
        if (total->errors[kind] > 0) {
            fprintf(out, "%s%s %" PRIu64, comma, load_error_kind_name(kind), total->errors[kind]);
            comma = ", ";
        }
    }
    fprintf(out, "\n");
    if (total->first_error[0] != '\0') {
        fprintf(out, "%-14s%s\n", "first error", total->first_error);
    }
    if (total->first_wrong[0] != '\0' && strstr(total->first_error, total->first_wrong) == NULL) {
        fprintf(out, "%-14s%s\n", "wrong data", total->first_wrong);
    }
}

static void print_figures(FILE *out, const load_plan *plan, const load_tally *total) {
    double rate = requests_per_second(total);
    fprintf(out, "%-14s%" PRIu64 "  %.1f requests/s  %.2f MiB/s each way\n", "requests", total->requests, rate,
            rate * (double)plan->size / MIB);
    if (load_plan_is_open(plan)) {
        print_times(out, "response time", &total->latency);
        print_times(out, "service time", &total->service);
        fprintf(out, "%-14s%" PRIu64 " requests were due, %" PRIu64 " sent late, %" PRIu64 " never sent\n", "schedule",
                total->scheduled, total->late, total->missed);
    } else {
        print_times(out, "latency", &total->latency);
    }
}

void load_report_text(FILE *out, const load_plan *plan, const load_run *run) {
    const load_tally *total = load_run_total(run);
    print_setup(out, plan, run);
    if (total->duration_s > 0) {
        print_figures(out, plan, total);
    }
    if (plan->reconnect) {
        fprintf(out, "%-14s%" PRIu64 " connections were ended and begun anew, %" PRIu64 " requests repeated\n",
                "reconnects", total->reconnects, total->repeated);
    }
    print_errors(out, total);
    for (unsigned i = 0; i < load_run_workers(run); i++) {
        const load_tally *tally = load_run_tally(run, i);
        double part = total->requests > 0 ? (double)tally->requests / (double)total->requests : 0;
        fprintf(out, "worker %-7u%" PRIu64 " requests (%.1f %%), %" PRIu64 " connections, CPU %.0f %%\n", i,
                tally->requests, 100 * part, tally->connections, 100 * cpu_part(tally));
    }
}

/* ---- For programs ---- */

static void json_text(FILE *out, const char *text) {
    fputc('"', out);
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            fprintf(out, "\\%c", c);
        } else if (c < 0x20) {
            fprintf(out, "\\u%04x", c);
        } else {
            fputc(c, out);
        }
    }
    fputc('"', out);
}

static void json_times(FILE *out, const char *name, const histogram *times) {
    fprintf(out,
            ",\"%s\":{\"p50\":%" PRIu64 ",\"p90\":%" PRIu64 ",\"p99\":%" PRIu64 ",\"p99_9\":%" PRIu64
            ",\"max\":%" PRIu64 ",\"mean\":%.0f}",
            name, histogram_percentile(times, 50), histogram_percentile(times, 90), histogram_percentile(times, 99),
            histogram_percentile(times, 99.9), times->maximum, histogram_mean(times));
}

static void json_plan(FILE *out, const load_plan *plan, const load_run *run) {
    fprintf(out, "\"host\":");
    json_text(out, plan->host);
    fprintf(out, ",\"tls\":%s,\"resume\":%s", plan->tls ? "true" : "false", plan->resume ? "true" : "false");
    fprintf(out, ",\"port\":%" PRIu64 ",\"mode\":\"%s\",\"churn\":%s,\"connections\":%" PRIu64, plan->port,
            load_plan_is_open(plan) ? "open" : "closed", plan->churn ? "true" : "false", plan->connections);
    fprintf(out, ",\"size\":%" PRIu64 ",\"pipeline\":%" PRIu64 ",\"rate\":%.15g,\"interrupted\":%s", plan->size,
            plan->pipeline, plan->rate, load_run_interrupted(run) ? "true" : "false");
}

static void json_errors(FILE *out, const load_tally *total) {
    fprintf(out, ",\"errors\":{");
    for (unsigned kind = 0; kind < LOAD_ERROR_KINDS; kind++) {
        fprintf(out, "%s\"%s\":%" PRIu64, kind > 0 ? "," : "", load_error_kind_name(kind), total->errors[kind]);
    }
    fprintf(out, "},\"first_error\":");
    if (total->first_error[0] != '\0') {
        json_text(out, total->first_error);
    } else {
        fprintf(out, "null");
    }
}

static void json_workers(FILE *out, const load_run *run) {
    fprintf(out, ",\"workers\":[");
    for (unsigned i = 0; i < load_run_workers(run); i++) {
        const load_tally *tally = load_run_tally(run, i);
        fprintf(out, "%s{\"requests\":%" PRIu64 ",\"connections\":%" PRIu64 ",\"cpu_s\":%.6f}", i > 0 ? "," : "",
                tally->requests, tally->connections, tally->cpu_s);
    }
    fprintf(out, "]");
}

void load_report_json(FILE *out, const load_plan *plan, const load_run *run) {
    const load_tally *total = load_run_total(run);
    char text[LOAD_TEXT_SIZE];
    fprintf(out, "{");
    json_plan(out, plan, run);
    fprintf(out,
            ",\"requests\":%" PRIu64 ",\"requests_per_second\":%.3f,\"bytes\":%" PRIu64 ",\"duration_s\":%.6f"
            ",\"unmeasured\":%" PRIu64,
            total->requests, requests_per_second(total), total->requests * plan->size, total->duration_s,
            total->unmeasured);
    json_times(out, "latency_ns", &total->latency);
    if (load_plan_is_open(plan)) {
        json_times(out, "service_ns", &total->service);
    }
    fprintf(out, ",\"scheduled\":%" PRIu64 ",\"missed\":%" PRIu64 ",\"late\":%" PRIu64, total->scheduled, total->missed,
            total->late);
    fprintf(out, ",\"reconnects\":%" PRIu64 ",\"repeated\":%" PRIu64, total->reconnects, total->repeated);
    json_errors(out, total);
    json_workers(out, run);
    fprintf(out, ",\"generator_limited\":%s}\n",
            load_generator_limit(plan, run, text, sizeof(text)) != NULL ? "true" : "false");
}
