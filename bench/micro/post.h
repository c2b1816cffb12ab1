/*
 * One thread posting to another's loop: what each library must offer so that post.c can measure it. A party is a loop;
 * its functions are called by the thread that runs it, but for party_post().
 */
#ifndef TRAM_BENCH_POST_H
#define TRAM_BENCH_POST_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct party;

/* A tram_callback, so that tram needs no function in between; the others pass NULL for the loop. */
struct tram_loop;
typedef int (*post_function)(struct tram_loop *loop, void *arg);

extern const bool party_can_spin; /* has an option to poll for a while before it sleeps */

#ifdef ASK
/* The party's thread, where a post is a request: how many have been answered. */
uint64_t party_answered(void);
#endif

struct party *party_new(uint64_t spin_ns);
void party_free(struct party *party);

/* Runs until party_stop(), which is called by one of its functions. */
void party_run(struct party *party);
void party_stop(struct party *party);

/* Any thread: runs function(arg) on the party's loop, in order. */
void party_post(struct party *party, post_function function, void *arg);

/* The party's thread: runs function(arg) in the next turn of its loop. */
void party_soon(struct party *party, post_function function, void *arg);

#ifdef __cplusplus
}
#endif

#endif
