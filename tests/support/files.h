/* A file that the library opens by itself, and another one that it gets in place of it; NULL: what it asks for. */
#ifndef TRAM_TESTS_SUPPORT_FILES_H
#define TRAM_TESTS_SUPPORT_FILES_H

extern const char *file_asked_for, *file_in_its_place;

#endif
