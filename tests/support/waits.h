/* The newest tasks of the running loop: what waits says truly where. Ends the program otherwise. */
#ifndef TRAM_TESTS_SUPPORT_WAITS_H
#define TRAM_TESTS_SUPPORT_WAITS_H

void waits_check(void);

#endif
