#include "support/arguments.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/version.h>

/* ---- Values ---- */

static bool parse_count(const char *text, uint64_t *ret_value) {
    if (*text == '\0' || text[strspn(text, "0123456789")] != '\0') {
        return false; /* strtoull would take signs and blanks */
    }
    errno = 0;
    *ret_value = strtoull(text, NULL, 10);
    return errno == 0;
}

static bool parse_real(const char *text, double *ret_value) {
    if (*text == '\0' || text[strspn(text, "0123456789.eE+-")] != '\0') {
        return false; /* strtod would take blanks, hexadecimal, infinity and what is not a number */
    }
    char *end = NULL;
    *ret_value = strtod(text, &end);
    return *end == '\0' && isfinite(*ret_value);
}

static bool set_number(const program_info *program, const argument_spec *argument, const char *text) {
    double value = 0;
    uint64_t count = 0;
    bool good = false;
    if (argument->kind == ARGUMENT_COUNT) {
        good = parse_count(text, &count);
        value = (double)count;
    } else {
        good = parse_real(text, &value);
    }
    if (!good || value < argument->minimum || value > argument->maximum) {
        complain(program, "%s: \"%s\" is not a %s from %.15g to %.15g", argument->name, text,
                 argument->kind == ARGUMENT_COUNT ? "whole number" : "number", argument->minimum, argument->maximum);
        return false;
    }
    if (argument->kind == ARGUMENT_COUNT) {
        *(uint64_t *)argument->value = count;
    } else {
        *(double *)argument->value = value;
    }
    return true;
}

static bool set_choice(const program_info *program, const argument_spec *argument, const char *text) {
    for (unsigned i = 0; argument->choices[i] != NULL; i++) {
        if (strcmp(argument->choices[i], text) == 0) {
            *(unsigned *)argument->value = i;
            return true;
        }
    }
    complain(program, "%s: \"%s\" is not one of %s", argument->name, text, argument->placeholder);
    return false;
}

static bool set_value(const program_info *program, const argument_spec *argument, const char *text) {
    switch (argument->kind) {
    case ARGUMENT_FLAG:
        *(bool *)argument->value = true;
        return true;
    case ARGUMENT_TEXT:
        *(const char **)argument->value = text;
        return true;
    case ARGUMENT_CHOICE:
        return set_choice(program, argument, text);
    case ARGUMENT_COUNT:
    case ARGUMENT_REAL:
        break;
    }
    return set_number(program, argument, text);
}

/* ---- The command line ---- */

static void show_help(const program_info *program) {
    printf("usage: %s [options]\n\n%s\n\noptions:\n", program->name, program->summary);
    for (size_t i = 0; i < program->argument_count; i++) {
        const argument_spec *argument = &program->arguments[i];
        char left[64];
        snprintf(left, sizeof(left), "%s %s", argument->name,
                 argument->placeholder != NULL ? argument->placeholder : "");
        printf("  %-24s %s\n", left, argument->help);
    }
    printf("  %-24s %s\n", "--help", "show this and exit");
    printf("  %-24s %s\n", "--version", "show the version and exit");
    printf("\n%s\n", program->notes);
}

static const argument_spec *find_argument(const program_info *program, const char *word, size_t length) {
    for (size_t i = 0; i < program->argument_count; i++) {
        const char *name = program->arguments[i].name;
        if (strlen(name) == length && strncmp(name, word, length) == 0) {
            return &program->arguments[i];
        }
    }
    return NULL;
}

/* Takes the option at argv[*index] and leaves *index at its last word. */
static bool take_option(const program_info *program, int argc, char **argv, int *index) {
    const char *word = argv[*index];
    size_t length = strcspn(word, "=");
    const argument_spec *argument = find_argument(program, word, length);
    if (argument == NULL) {
        complain(program, "%s: no such option (see %s --help)", word, program->name);
        return false;
    }
    const char *value = word[length] == '=' ? word + length + 1 : NULL;
    if (argument->kind == ARGUMENT_FLAG) {
        if (value != NULL) {
            complain(program, "%s: takes no value", argument->name);
            return false;
        }
    } else if (value == NULL) {
        if (*index + 1 >= argc) {
            complain(program, "%s: needs a value", argument->name);
            return false;
        }
        value = argv[++*index];
    }
    return set_value(program, argument, value);
}

arguments_outcome arguments_parse(const program_info *program, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            show_help(program);
            return ARGUMENTS_SHOWN;
        }
        if (strcmp(argv[i], "--version") == 0) {
            printf("%s %s\n", program->name, tram_version());
            return ARGUMENTS_SHOWN;
        }
        if (!take_option(program, argc, argv, &i)) {
            return ARGUMENTS_WRONG;
        }
    }
    return ARGUMENTS_RUN;
}

void complain(const program_info *program, const char *format, ...) {
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s: %s\n", program->name, message);
}
