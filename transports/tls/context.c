#include "transports/tls/context.h"

#include <openssl/err.h>

#include "core/base/memory.h"
#include "transports/base/state.h"
#include "transports/tls/bio.h"
#include "transports/tls/build.h"
#include "transports/tls/callbacks.h"

/* ---- OpenSSL's algorithms ---- */

static struct tls_library *library_new(bool own) {
    struct tls_library *library = tram__memory_get_zero(&tram__memory_default, sizeof *library);
    if (!library)
        return NULL;
    atomic_init(&library->references, 1);
    if (own)
        library->openssl = OSSL_LIB_CTX_new();
    if (!own || library->openssl)
        library->ticket_cipher = EVP_CIPHER_fetch(library->openssl, "AES-256-CBC", NULL);
    if (library->ticket_cipher)
        return library;
    OSSL_LIB_CTX_free(library->openssl);
    memory_put(&tram__memory_default, library, sizeof *library);
    ERR_clear_error();
    return NULL;
}

static void library_release(struct tls_library *library) {
    if (!library || atomic_fetch_sub_explicit(&library->references, 1, memory_order_acq_rel) != 1)
        return;
    EVP_CIPHER_free(library->ticket_cipher);
    OSSL_LIB_CTX_free(library->openssl);
    memory_put(&tram__memory_default, library, sizeof *library);
}

static struct tls_library *library_of(struct tls_loop *loop, bool own) {
    if (!loop->libraries[own])
        loop->libraries[own] = library_new(own);
    return loop->libraries[own];
}

/* ---- Contexts ---- */

struct tls_context *tram__tls_context_hold(struct tls_context *context) {
    atomic_fetch_add_explicit(&context->references, 1, memory_order_relaxed);
    return context;
}

void tram__tls_context_release(struct tls_context *context) {
    if (!context || atomic_fetch_sub_explicit(&context->references, 1, memory_order_acq_rel) != 1)
        return;
    SSL_CTX_free(context->openssl);
    tram__tls_description_release(context->description);
    tram__tls_config_drop(context->config);
    library_release(context->library);
    OPENSSL_cleanse(&context->tickets, sizeof context->tickets);
    memory_put(&tram__memory_default, context, sizeof *context);
}

static void forget(struct tls_context *context) {
    list_remove(&context->link);
    tram__tls_context_release(context);
}

/* Drops what nobody can ask for any more. */
static void sweep(struct tls_loop *loop) {
    for (struct list *node = loop->contexts.next, *next; node != &loop->contexts; node = next) {
        next = node->next;
        struct tls_context *context = container_of(node, struct tls_context, link);
        if (tls_config_abandoned(context->config))
            forget(context);
    }
}

static struct tls_context *find(struct tls_loop *loop, const tram_tls_config *config,
                                const struct tls_library *library) {
    for (struct list *node = loop->contexts.next; node != &loop->contexts; node = node->next) {
        struct tls_context *context = container_of(node, struct tls_context, link);
        const struct tls_library *wanted =
            library ? library : loop->libraries[context->description->own_library_context];
        if (context->config == config && context->library == wanted)
            return context;
    }
    return NULL;
}

/* Takes the description. */
static int make(struct tls_loop *loop, tram_tls_config *config, struct tls_description *description,
                struct tls_library *library, struct tls_context **ret_context, struct tls_failure *failure) {
    if (!library)
        library = library_of(loop, description->own_library_context);
    struct tls_context *context = tram__memory_get_zero(&tram__memory_default, sizeof *context);
    SSL_CTX *openssl = library && context ? tram__tls_build(description, library->openssl, failure) : NULL;
    if (!openssl) {
        if (!library || !context)
            tram__tls_fail(failure, -ENOMEM, NULL, "out of memory");
        memory_put(&tram__memory_default, context, sizeof *context);
        tram__tls_description_release(description);
        return failure->code;
    }
    tram__tls_callbacks_install(openssl, description);
    atomic_init(&context->references, 1);
    context->openssl = openssl;
    context->description = description;
    context->library = library;
    atomic_fetch_add_explicit(&library->references, 1, memory_order_relaxed);
    context->config = config;
    tram__tls_config_keep(config);
    list_append(&loop->contexts, &context->link);
    *ret_context = context;
    return 0;
}

int tram__tls_context_open(struct tls_loop *loop, tram_tls_config *config, struct tls_library *library,
                           struct tls_context **ret_context, struct tls_failure *failure) {
    struct tls_context *context = find(loop, config, library);
    if (!context || context->generation != tls_config_generation(config)) {
        sweep(loop);
        struct tls_context *old = find(loop, config, library);
        unsigned generation;
        struct tls_description *description = tram__tls_config_describe(config, &generation);
        int code = make(loop, config, description, library, &context, failure);
        if (code != 0)
            return code;
        context->generation = generation;
        if (old)
            forget(old);
    }
    *ret_context = tram__tls_context_hold(context);
    return 0;
}

int tram__tls_context_serve(struct tls_context *context, bool server, struct tls_failure *failure) {
    const struct tls_description *description = context->description;
    int code = tram__tls_description_serve(description, server, failure);
    if (code != 0)
        return code;
    bool wanted = description->system_ca || (!server && !description->has_ca);
    if (!wanted || context->has_system_ca)
        return 0;
    if (!SSL_CTX_set_default_verify_paths(context->openssl))
        return tram__tls_fail_openssl(failure, TRAM_ETLS, "system_ca", "system_ca");
    ERR_clear_error(); /* a file that is not there is none */
    context->has_system_ca = true;
    return 0;
}

/* ---- The slot of a loop ---- */

static void free_loop(tram_loop *loop, struct loop_state *state) {
    struct tls_loop *tls = container_of(state, struct tls_loop, state);
    while (tls->contexts.next && !list_empty(&tls->contexts))
        forget(container_of(tls->contexts.next, struct tls_context, link));
    library_release(tls->libraries[0]);
    library_release(tls->libraries[1]);
    if (tls->record)
        OPENSSL_cleanse(tls->record, TLS_RECORD_SIZE);
    memory_put(&loop->allocator, tls->record, TLS_RECORD_SIZE);
    tram__tls_bio_close(tls);
}

struct tls_loop *tram__tls_loop_open(tram_loop *loop) {
    struct tls_loop *tls = tram__loop_slot_open(loop, TRANSPORT_SLOT_TLS, sizeof *tls, free_loop);
    if (!tls || tls->bio)
        return tls;
    tls->loop = loop;
    if (!tls->contexts.next) {
        list_init(&tls->contexts);
        list_init(&tls->used);
        list_init(&tls->resting);
        tls->idle_round = 1; /* 0 stands for none */
    }
    return tram__tls_bio_open(tls) ? tls : NULL;
}
