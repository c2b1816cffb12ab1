/* Every bound of the library that is not an option, by name. */
#ifndef TRAM_CORE_BASE_LIMITS_H
#define TRAM_CORE_BASE_LIMITS_H

#define TRAM_RECEIVE_SIZE          (256u * 1024u) /* one read takes at most this */
#define TRAM_EVENTS_PER_TICK       256            /* descriptors served in one tick; the rest come next time */
#define TRAM_DESCRIPTOR_PAGE       1024           /* numbers of a page of the table of descriptors */
#define TRAM_SPIN_POLL_NS          2000u          /* how often a loop that spins looks at its descriptors */
#define TRAM_SPIN_PER_MAIL_NS      64u            /* that a loop may spin after mail, for each, … */
#define TRAM_SPIN_BUDGET_NS        10000u         /* … up to this, and … */
#define TRAM_SPIN_LEAST_NS         2000u          /* … at least this at a time */
#define TRAM_MAIL_PER_TICK         256            /* nodes taken from the mailbox in one tick */
#define TRAM_MAIL_PORTION          16             /* … and between two looks for signals and for a stop */
#define TRAM_MAIL_CHAIN            64             /* nodes that are posted together */
#define TRAM_MAIL_WHILE_ENDING     32             /* … in one tick once a stop was asked for */
#define TRAM_MAIL_BATCH            1024           /* nodes that were run and wait to be returned together */
#define TRAM_MAILBOX_LIMIT         65536          /* try_call_soon_threadsafe calls that may wait, by default */
#define TRAM_LOOPS_MAX             4096           /* that have addresses at one time */
#define TRAM_ADDRESSEE_LIMIT       1024u          /* messages of tram_try_post() on their way to one, by default */
#define TRAM_POLL_LIMIT_NS         (24ull * 3600 * 1000000000ull) /* a wait is never longer (L-6) */
#define TRAM_SLOW_CALLBACK_NS      100000000ull                   /* what is slow in debug mode (L-30) */
#define TRAM_WRITE_HIGH            65536u                         /* water marks (W-13) */
#define TRAM_WRITE_LOW             16384u
#define TRAM_DROPPED_WRITES_SILENT 5               /* counts from which a dropped write is logged (W-6) */
#define TRAM_WRITE_PIECES          64              /* chunks handed to one gathering send */
#define TRAM_DATAGRAMS_IN          32              /* received by one system call (D-7) */
#define TRAM_DATAGRAMS_OUT         128             /* handed to one system call */
#define TRAM_DATAGRAM_SLOT         65536u          /* room for one of UDP, or for some that were joined */
#define TRAM_DATAGRAM_SLOT_LARGE   262144u         /* … of other families (D-7) */
#define TRAM_DATAGRAMS_HELD        262144u         /* bytes that a cork holds back */
#define TRAM_SEGMENTS              64              /* datagrams that the kernel cuts from one (UDP_MAX_SEGMENTS) */
#define TRAM_SEGMENTS_SIZE         65400u          /* … and their bytes: 64 KiB less headers with options */
#define TRAM_DATAGRAM_RETRY_NS     1000000ull      /* after the kernel refused what it had asked for */
#define TRAM_SPLICE_SIZE           (1024u * 1024u) /* one splice moves at most this, and a pipe holds it */
#define TRAM_SPLICE_BEGIN          (128u * 1024u)  /* receives of at least this are bulk, … */
#define TRAM_SPLICE_END            (64u * 1024u)   /* … of less than this no more */
#define TRAM_SPLICE_AFTER          (1024u * 1024u) /* of bulk, before the kernel moves it */
#define TRAM_PIPES                 8               /* that a loop has for that */
#define TRAM_DESCRIPTORS_MAX       253             /* that go with one byte (SCM_MAX_FD) */
#define TRAM_CHUNKS_KEPT           64              /* free chunks of each size that a loop keeps */
#define TRAM_LAYER_READ            65536u          /* delivered at once of what layers have read */
#define TRAM_LAYER_READS_PER_TICK  64              /* of one receive, before others have their turn (Y-3) */
#define TRAM_BACKLOG               100             /* of a listener (V-6) */
#define TRAM_SENDFILE_SIZE         (1024u * 1024u) /* one sendfile(2) sends at most this (F-13) */
#define TRAM_SENDFILE_BLOCK        (16u * 1024u)   /* read and written at once where the kernel cannot (F-9) */
#define TRAM_SOCK_SENDFILE_BLOCK   (256u * 1024u)  /* … on plain sockets (F-11) */
#define TRAM_SOCK_LOOK_NS          125000000ull    /* the first look for a closed descriptor (O-15), and … */
#define TRAM_SOCK_LOOK_MAX_NS      8000000000ull   /* … the longest time between two */
#define TRAM_SOCK_BACKOFF_NS       1000000ull      /* the first pause where the kernel will not tell, and … */
#define TRAM_SOCK_BACKOFF_MAX_NS   128000000ull    /* … the longest */
#define TRAM_BACKLOG_RUNTIME       4096
#define TRAM_ACCEPT_RETRY_NS       1000000000ull  /* pause after descriptor or memory exhaustion (V-11) */
#define TRAM_ACCEPT_DOUBLINGS      6              /* of the same, where accept keeps failing (V-12) */
#define TRAM_CONNECT_RETRY_NS      5000000ull     /* pause before a full Unix listener is tried again */
#define TRAM_CONNECT_AGAIN_NS      100000000ull   /* the first wait before connecting is tried again (C-18), and … */
#define TRAM_CONNECT_AGAIN_MAX_NS  30000000000ull /* … the longest */
#define TRAM_GRACE_NS              10000000000ull /* of tram_runtime_stop() */
#define TRAM_GRACE_REST_NS         1000000000ull  /* that a worker waits for others after its end */
#define TRAM_SIGNALS_MERGE_NS      100000000ull   /* signals that come within it stop a runtime once (G-5) */
#define TRAM_LOG_PER_SECOND        10             /* lines of one site and loop; the rest is counted */
#define TRAM_LOG_SITES             16             /* that are told apart within a second */
#define TRAM_LOG_SAMPLE            160
#define TRAM_ACCEPTS_PER_TICK      256            /* of one listener (V-9) */
#define TRAM_STARVED_LONG_NS       60000000000ull /* after which want of descriptors is told anew (V-11) */
#define TRAM_WORKERS_MAX           1024
#define TRAM_ERROR_TEXT            256            /* detail text kept with an error */
#define TRAM_TASK_STACK            (128u * 1024u) /* of a task, guard included: libc's deepest calls fit, see stack.h */
#define TRAM_TASK_STACKS_KEPT      256            /* free stacks that a loop keeps */
#define TRAM_LINGER_NS             2000000000ull  /* of a close that lingers, unless it says (W-31) */
#define TRAM_LAYERS_ENDING_NS      1000000000ull  /* to become ready, for those that are asked to end */
#define TRAM_TLS_WRITE_HIGH        524288u        /* water marks (S-20) */
#define TRAM_TLS_WRITE_LOW         131072u
#define TRAM_TLS_FILE_MAX          (16 * 1024 * 1024) /* of certificates and keys */
#define TRAM_TLS_CERTIFICATES_MAX  16                 /* of our own in a config */
#define TRAM_TLS_TICKETS_MAX       8                  /* sent by one handshake */
#define TRAM_TLS_SESSIONS_MAX      (1u << 20)         /* that a config remembers */
#define TRAM_TLS_TICKET_KEYS       3                  /* that are understood, the one in use included */
#define TRAM_TLS_HANDSHAKE_NS      60000000000ull     /* S-3 */
#define TRAM_TLS_SHUTDOWN_NS       30000000000ull     /* S-16 */
#define TRAM_TLS_IDLE_NS           5000000000ull      /* a round; idle for one to two of them: buffers go back */
#define TRAM_TLS_BUSY_USES         8                  /* reads and writes, before buffers are kept between them */
#define TRAM_TLS_TRIMS_PER_TICK    256                /* of their buffers, before others have their turn */
#define TRAM_TLS_STEPS_PER_TICK    4                  /* of handshakes, before others have their turn */
#define TRAM_TLS_KEY_UPDATES       32                 /* that a peer may ask for at once, and then … */
#define TRAM_TLS_KEY_UPDATE_NS     1000000000ull      /* … one in each such time (S-25) */
#define TRAM_CHILD_DEATH_MS        1000 /* how long a killed child may take to die while its loop closes */

#endif
