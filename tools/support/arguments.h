/* The command line of a program: one table is its parser, its checks and its --help. */
#ifndef TRAM_TOOLS_ARGUMENTS_H
#define TRAM_TOOLS_ARGUMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum argument_kind {
    ARGUMENT_FLAG,   /* bool */
    ARGUMENT_TEXT,   /* const char * */
    ARGUMENT_COUNT,  /* uint64_t in [minimum, maximum] */
    ARGUMENT_REAL,   /* double in [minimum, maximum] */
    ARGUMENT_CHOICE, /* unsigned: index into `choices` */
} argument_kind;

/* One option. `value` points to a variable of the kind's type, which holds the default before parsing. */
typedef struct argument_spec {
    const char *name; /* with its dashes */
    const char *placeholder;
    const char *help;
    argument_kind kind;
    void *value;
    double minimum;
    double maximum;
    const char *const *choices; /* ended by NULL */
} argument_spec;

typedef struct program_info {
    const char *name;
    const char *summary;
    const char *notes; /* the end of --help: exit codes and the like */
    const argument_spec *arguments;
    size_t argument_count;
} program_info;

/* Exit codes that all programs share. */
enum {
    EXIT_RUNTIME_TROUBLE = 1,
    EXIT_BAD_USAGE = 2,
};

typedef enum arguments_outcome {
    ARGUMENTS_RUN,   /* go on */
    ARGUMENTS_SHOWN, /* --help or --version was asked for and printed */
    ARGUMENTS_WRONG, /* a message was printed */
} arguments_outcome;

/* Takes "--name value" and "--name=value"; the last of several wins. */
arguments_outcome arguments_parse(const program_info *program, int argc, char **argv);

/* "NAME: message" on standard error, as one line. */
void complain(const program_info *program, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
