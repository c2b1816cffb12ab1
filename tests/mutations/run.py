#!/usr/bin/env python3
"""Takes the mechanism of a rule away and looks whether a test of that rule notices.

usage: run.py [--places | RULE ...]

Each mutation replaces one piece of the source in a copy of the tree, builds it, and runs the test programs that
prove the rule, by docs/rules.md's own naming. A mutation that no test of its rule notices is a failure: the test does
not hold what it says. A mutation that does not apply any more is one, too; --places looks for these alone, at once.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]

# rule, file, what stands there, what stands there instead, what that breaks
MUTATIONS = [
    ("L-3", "core/loop/loop.c",
     "    run_batch(loop);\n    if (mail)\n        tram__loop_run_mail(loop, mail);\n    loop->poller_ops->serve(loop, loop->poller);\n",
     "    loop->poller_ops->serve(loop, loop->poller);\n    run_batch(loop);\n    if (mail)\n        tram__loop_run_mail(loop, mail);\n",
     "I/O runs before what was queued earlier"),
    ("L-3", "core/loop/loop.c",
     "    if (mail)\n        tram__loop_run_mail(loop, mail);\n    loop->poller_ops->serve(loop, loop->poller);\n",
     "    loop->poller_ops->serve(loop, loop->poller);\n    if (mail)\n        tram__loop_run_mail(loop, mail);\n",
     "I/O runs before the posts that woke the loop"),
    ("L-11", "core/loop/mail.c",
     "    place_mail(loop);\n    list_append(&loop->ready, &ready->link);\n",
     "    list_append(&loop->ready, &ready->link);\n",
     "a call_soon overtakes the posts before it"),
    ("L-11", "core/loop/handles.c",
     "    if (unlikely(tram__mailbox_entered == loop->mailbox))\n",
     "    if (false)\n",
     "posts of the loop's own callbacks have no place among its call_soon"),
    ("L-11", "core/loop/handles.c",
     "    if (loop->mailbox->unplanned) {\n",
     "    if (false) {\n",
     "a post of a callback overtakes those of the same thread that a tick had no room for"),
    ("L-16", "core/base/slots.h",
     "    if (unlikely(slot->generation == UINT32_MAX))\n",
     "    if (false)\n",
     "a slot that had all its generations is used again"),
    ("L-16", "core/loop/handles.c",
     "since == 1 || since == 2",
     "since == 1",
     "how a call ended is forgotten when its slot has the next"),
    ("L-11", "core/loop/mailbox.c",
     "    if (atomic_load_explicit(&mailbox->state, memory_order_relaxed) == MAILBOX_CLOSED)\n        discard_inbox(mailbox);\n",
     "",
     "a post that was accepted while the loop closed is lost"),
    ("L-41", "core/tasks/task.h",
     "    return unlikely(loop_guard(task->future.loop) == GUARD_FORKED) ? -ECHILD : 0;\n",
     "    return 0;\n",
     "a child of fork waits in its parent's task"),
    ("V-41", "transports/server/waits.c",
     "    if (server->load)\n        balance_cut(server->load, cut);\n",
     "",
     "the drain of a runtime's server does not count what it resets"),
    ("L-19", "core/loop/watch.c",
     "    struct discard *discard = clear(watch, which);\n",
     "    struct discard *discard = NULL;\n",
     "a removed callback goes on"),
    ("L-18", "core/loop/watch.c",
     "return taken(registration) && registration->since != watch->io.loop->stats.ticks;",
     "return taken(registration);",
     "a new registration gets the event of the old one"),
    ("T-5", "transports/base/lifecycle.c",
     "    if (!(transport->flags & T_MADE_PENDING) || is_held_back(transport))\n        queue_lost(transport);\n",
     "    if (!(transport->flags & T_MADE_PENDING) || is_held_back(transport))\n        call_lost(transport);\n",
     "connection_lost inside close and abort"),
    ("Y-3", "transports/base/layer.c",
     "    int status = tram__stack_hold(transport, layer->above, rest, size);\n",
     "    int status = 0;\n    (void)rest, (void)size;\n",
     "what a layer has read that removes itself is lost"),
    ("V-18", "transports/server/ops.c",
     "if (server->life != SERVER_CLOSED || server->connections)",
     "if (server->life < SERVER_CLOSING || server->connections)",
     "a server is at its end while who got through is served still"),
    ("C-11", "transports/connect/connector.c",
     "    if (connector->life != CONNECTOR_MADE) {\n",
     "    if (true) {\n",
     "a forbidden move: a connector ends whose transport is made"),
    ("V-41", "transports/server/server.c",
     "    if (server->life >= SERVER_CLOSING)\n        return;\n    tram_loop *loop",
     "    tram_loop *loop",
     "a forbidden move: a server is closed twice"),
    ("Y-8", "transports/base/validate.c",
     "    [LIFE_ENDED] = {\"ended\", {[MOVE_LOSE] = LIFE_LOST}},\n",
     "    [LIFE_ENDED] = {\"ended\", {[MOVE_CLOSE] = LIFE_CLOSING, [MOVE_LOSE] = LIFE_LOST}},\n",
     "a life may go back: a close of what is ended"),
    ("T-1", "transports/base/lifecycle.c",
     "int tram__transport_abort(tram_transport *transport) {\n    if (transport->flags & T_LOST_PENDING)\n        return 0;\n",
     "int tram__transport_abort(tram_transport *transport) {\n",
     "a forbidden move: what has ended ends once more"),
    ("W-31", "transports/base/linger.c",
     "    tram__transport_choose_receiver(transport);\n",
     "",
     "what comes while a close lingers is delivered"),
    ("W-31", "transports/base/writing.c",
     "        if (unlikely(lingers(transport)))\n            return;\n",
     "",
     "a close that has flushed does not linger"),
    ("Y-8", "transports/base/stack_life.c",
     "layer->kind->shutdown ? layer->kind->shutdown(layer) : 0;",
     "0;",
     "no layer is shut down"),
    ("Y-1", "transports/base/layer.c",
     "    stack->kept = stack->kept - layer->kept + bytes;\n",
     "    stack->kept = stack->kept + bytes;\n",
     "what a layer keeps counts twice"),
    ("Y-5", "transports/base/layer.c",
     "    if (--stack->depth == 0 && has_acts(stack))\n",
     "    if (--stack->depth <= 1 && has_acts(stack))\n",
     "user code under a layer"),
    ("Y-3", "transports/base/stack.c",
     "    int status = tram__stack_hold(transport, stack_bottom(stack), stack->window, stack->window_size);\n",
     "    int status = 0;\n",
     "what a receive brought and nobody has read is lost with a detach"),
    ("Y-3", "transports/base/stack.h",
     "|| (transport->flags & (T_MADE | T_EOF)) != T_MADE)",
     "|| !(transport->flags & T_MADE))",
     "layers that keep bytes are read behind the end of their stream"),
    ("Y-4", "transports/base/writing.c",
     "    ssize_t sent = io_try_send_pieces(&transport->io, pieces, count);\n    if (sent < 0 && sent != -EAGAIN && !send_is_starved(sent))\n",
     "    ssize_t sent = io_try_send_pieces(&transport->io, pieces, count);\n    if (sent < 0 && !send_is_starved(sent))\n",
     "a full kernel is a failed send to what layers have written"),
    ("Y-1", "transports/base/handover.c",
     "    *limits = detached->limits;\n",
     "",
     "water marks and the hard limit stay behind"),
    ("Y-1", "transports/base/handover.c",
     "    transport->flags |= detached->flags;\n",
     "",
     "an end of writing is forgotten on the way"),
    ("Y-7", "transports/base/handover.c",
     "        int code = left->kind->arrive(left);\n",
     "        int code = 0;\n",
     "layers that had left do not come back where another one stays"),
    ("T-19", "core/backend/epoll.c",
     "if (unlikely(event->events != EPOLLIN || !(io->wanted & IO_READ))) {",
     "if (unlikely(event->events != EPOLLIN)) {",
     "an event reaches a transport that was paused or closed in the same poll"),
    ("R-3", "transports/base/transport.c",
     "        return 0; /* they read */\n    tram__io_receive_stop(&transport->io);\n",
     "        return 0; /* they read */\n",
     "pause_reading does not stop reading"),
    ("S-15", "transports/base/stack_life.c",
     "    (void)transport_kind_of(transport)->end_writing(transport); /* a dead connection is told by reading */\n",
     "",
     "a server's goodbye is not followed by the end of the stream"),
    ("R-7", "transports/base/transport.c",
     "return !(transport->flags & (T_PAUSED | T_CLOSING | T_EOF | T_EXCLUSIVE));",
     "return !(transport->flags & (T_PAUSED | T_CLOSING | T_EXCLUSIVE));",
     "is_reading after EOF"),
    ("W-9", "transports/base/writing.c",
     "        return TRAM_ESTATE;\n    if (size)\n",
     "        return 0;\n    if (size)\n",
     "a write after write_eof is no error"),
    ("W-16", "transports/base/writing.c",
     "transport_write_size(transport) <= transport->limits->high ||",
     "transport_write_size(transport) < transport->limits->high ||",
     "pause_writing at the high-water mark instead of above it"),
    ("W-18", "transports/base/writing.c",
     "transport_write_size(transport) > transport->limits->low)",
     "transport_write_size(transport) >= transport->limits->low)",
     "resume_writing below the low-water mark instead of at it"),
    ("W-20", "transports/base/writing.c",
     "    transport->flags &= ~(uint32_t)T_WRITING_PAUSED;\n    tram__protocol_resume_writing(transport);\n",
     "    tram__protocol_resume_writing(transport);\n    transport->flags &= ~(uint32_t)T_WRITING_PAUSED;\n",
     "a pause inside resume_writing is forgotten"),
    ("P-3", "transports/base/lifecycle.c",
     "        transport->creator = tram_future_hold(creator);\n",
     "        tram__future_finish(creator, transport), creator = NULL;\n",
     "the creator is woken before connection_made"),
    ("P-8", "transports/stream/stream.c",
     "    else if (keep_open == 0)\n        tram__transport_close(transport);\n",
     "",
     "the transport does not close itself after eof_received"),
    ("V-11", "transports/server/server.c",
     "        listener->starved = true;\n        tram__io_accept_stop(&listener->io);\n",
     "        listener->starved = true;\n",
     "the listener is not left alone while descriptors are short"),
    ("V-18", "transports/server/ops.c",
     "if (server->life != SERVER_CLOSED || server->connections)",
     "if (server->life != SERVER_CLOSED)",
     "wait_closed completes while connections are open"),
    ("X-4", "transports/base/lifecycle.c",
     "    tram__protocol_release(finish(transport));\n",
     "    (void)finish(transport);\n",
     "released is never called"),
    ("O-2", "transports/sock/op.c",
     "return flags & O_NONBLOCK ? 0 : tram__invalid(\"fd\");",
     "return 0;",
     "blocking sockets pass in debug mode"),
    ("O-5", "transports/sock/op.c",
     "    tram__watcher_stop(&op->watcher);\n    deadline_cancel(loop_of(op), &op->deadline);\n    if (kind",
     "    op->watcher.watch = NULL;\n    deadline_cancel(loop_of(op), &op->deadline);\n    if (kind",
     "a cancelled operation stays registered"),
    ("O-6", "core/loop/watch.c",
     "    if (registration.watcher)\n        registration.watcher->watch = NULL;\n",
     "",
     "the removal of an operation takes the newer one off"),
    ("O-7", "transports/sock/op.c",
     "    if (tram__descriptor_owned(loop, fd))\n        return TRAM_ESTATE;\n",
     "",
     "operations on the descriptor of a transport"),
    ("O-12", "transports/sock/connect.c",
     "return error ? -error : (int)SOCK_DONE;",
     "return SOCK_DONE;",
     "writable is connected"),
    ("O-13", "transports/sock/sock.c",
     "    if (accept->accepted >= 0)\n        tram__socket_close(",
     "    if (accept->accepted >= 1000)\n        tram__socket_close(",
     "a connection that nobody took stays open"),
    ("O-15", "core/backend/epoll.c",
     "BOTH_WAYS((uint32_t)EPOLLONESHOT),",
     "BOTH_WAYS((uint32_t)0),",
     "a closed descriptor that lives on as a copy spins"),
    ("O-15", "core/loop/watch.c",
     "    if (*ret_watch && has_watchers(*ret_watch) && tram__io_renew(&(*ret_watch)->io) < 0) {",
     "    if (*ret_watch && has_watchers(*ret_watch) && false) {",
     "an operation meets the watch of a descriptor that was closed"),
    ("O-15", "transports/sock/op.c",
     "    tram__watcher_check(&op->watcher);\n",
     "",
     "nobody looks whether the descriptor was closed"),
    ("F-4", "transports/file/source.c",
     "    if (source->sent)\n        source->loop->sys->lseek",
     "    if (source->sent == UINT64_MAX)\n        source->loop->sys->lseek",
     "the position stays"),
    ("F-5", "transports/file/sendfile.c",
     " && sendfile->phase == PHASE_FLUSH && tram__transport_idle(transport))\n",
     " && sendfile->phase == PHASE_FLUSH)\n",
     "the file overtakes what was written"),
    ("F-6", "transports/base/writing.c",
     "#define T_NO_WRITING (T_WRITE_EOF | T_LINGERING | T_LOST_PENDING | T_EXCLUSIVE | T_WRITE_FAILED)",
     "#define T_NO_WRITING (T_WRITE_EOF | T_LINGERING | T_LOST_PENDING | T_WRITE_FAILED)",
     "others write into the file"),
    ("F-6", "transports/base/lifecycle.c",
     "(T_PAUSED | T_CLOSING | T_EOF | T_EXCLUSIVE) ||",
     "(T_PAUSED | T_CLOSING | T_EOF) ||",
     "reading is resumed meanwhile"),
    ("F-7", "transports/file/sendfile.c",
     " | T_BRIDGED",
     "",
     "a file is sent where a bridge writes"),
    ("U-9", "core/backend/descriptors.c",
     "&message, MSG_CMSG_CLOEXEC)",
     "&message, 0)",
     "descriptors that came go on to children"),
    ("U-10", "transports/stream/descriptors.c",
     "    close_all(io->loop, descriptors->waiting, descriptors->left);\n",
     "",
     "descriptors that nobody took stay open"),
    ("U-11", "core/backend/descriptors.c",
     "room ? CMSG_LEN(sizeof(int) * room) : 0",
     "room ? sizeof control : 0",
     "more descriptors come than were allowed"),
    ("U-12", "transports/base/write_queue.c",
     "        if (unlikely(chunk->fd_count && filled))\n            break; /* they go with the first byte of a send */\n",
     "",
     "descriptors go with other bytes than theirs, or with none"),
    ("U-13", "transports/base/write_queue.c",
     "        if (unlikely(chunk->fd_count))\n            close_descriptors(loop, chunk);\n",
     "",
     "duplicates stay open after they were sent"),
    ("F-9", "transports/file/sendfile.c",
     "        else if (sendfile->transport->flags & T_WRITING_PAUSED)\n            sendfile->phase = PHASE_PAUSED;\n",
     "",
     "blocks do not heed the water marks"),
    ("F-9", "transports/file/sendfile.c",
     "    if (sendfile->phase < PHASE_READ)\n        return false;\n",
     "    if (sendfile->phase < PHASE_READ || !paused)\n        return false;\n",
     "the protocol hears resume_writing of blocks"),
    ("F-10", "core/system/sigpipe.h",
     "    pthread_sigmask(SIG_BLOCK, &guard->pipe, &before);\n",
     "    pthread_sigmask(SIG_BLOCK, NULL, &before);\n",
     "a broken connection sends SIGPIPE"),
    ("F-13", "transports/file/sendfile.c",
     "TRAM_SENDFILE_SIZE);",
     "SIZE_MAX / 4);",
     "one call sends as much as the socket takes"),
    ("S-1", "transports/tls/layer.c",
     "    if (result == 0)\n        return -EAGAIN;\n",
     "    if (result == 0)\n        return 0;\n",
     "connection_made comes before the handshake is done"),
    ("S-2", "transports/base/lifecycle.c",
     "    if (list_empty(&ready->link) && !(transport->flags & T_HAS_CREATOR))\n",
     "    if (list_empty(&ready->link))\n",
     "data comes before the creator goes on"),
    ("S-3", "transports/tls/provider.c",
     "    tls->layer.start_timeout_ns =\n        use->handshake_timeout_ns ? use->handshake_timeout_ns : description->handshake_timeout_ns;\n",
     "",
     "a handshake may take for ever"),
    ("S-4", "transports/tls/engine.c",
     "-ECONNRESET, NULL, \"the peer closed",
     "TRAM_ETLS, NULL, \"the peer closed",
     "the end of the stream in a handshake is an error of TLS"),
    ("S-5", "transports/base/lifecycle.c",
     "    if (unlikely(transport->flags & T_MADE_PENDING))\n        lose_unmade(transport);\n    else\n        call_lost(transport);\n",
     "    call_lost(transport);\n",
     "connection_lost comes without a connection_made"),
    ("S-6", "transports/base/stack.c",
     "    if (stack_is_starting(transport)) {\n        tram__transport_fatal(transport, -ECONNABORTED, \"close\", NULL);\n        return false;\n    }\n",
     "",
     "a close waits for the end of the handshake"),
    ("S-7", "transports/tls/engine.c",
     "    if (!server)\n        return SSL_VERIFY_PEER;\n",
     "    if (!server)\n        return SSL_VERIFY_NONE;\n",
     "a client takes any certificate"),
    ("S-8", "transports/tls/provider.c",
     "    if (!use->server && tram__tls_name_parse(",
     "    if (tram__tls_name_parse(",
     "a server's side looks at its server host name"),
    ("S-9", "transports/tls/callbacks.c",
     "return description->alpn_optional ? SSL_TLSEXT_ERR_NOACK : SSL_TLSEXT_ERR_ALERT_FATAL;",
     "return SSL_TLSEXT_ERR_NOACK;",
     "a server goes on where a client offers other protocols only"),
    ("S-10", "transports/base/lifecycle.c",
     "    if (unlikely(transport->flags & (T_HELD | T_LAYERED)))\n        tram__transport_start_reading(transport);\n    if (unlikely(ended_before",
     "    if (unlikely(ended_before",
     "what came with the end of the handshake waits for more"),
    ("S-11", "transports/tls/layer.c",
     "        piece->iov_base = (char *)piece->iov_base + *size;\n        piece->iov_len -= *size;\n        return data;",
     "        piece->iov_len -= *size;\n        return data;",
     "the first record of a large piece is sent again and again"),
    ("S-12", "transports/tls/engine.c",
     "    return SSL_get_shutdown(engine->ssl) & SSL_RECEIVED_SHUTDOWN &&",
     "    return false &&",
     "the peer's close_notify is no end of the stream"),
    ("S-13", "transports/tls/layer.c",
     "    tls->engine.unclean |= !tls->engine.close_received;\n",
     "",
     "nobody can tell that a stream was cut off"),
    ("S-14", "transports/tls/layer.c",
     "    if (tls->engine.context->description->half_close && SSL_version",
     "    if (SSL_version",
     "one direction can be ended without half_close"),
    ("S-16", "transports/tls/provider.c",
     "    tls->layer.shutdown_timeout_ns =\n        use->shutdown_timeout_ns ? use->shutdown_timeout_ns : description->shutdown_timeout_ns;\n",
     "",
     "a peer that does not say goodbye is waited for for ever"),
    ("S-17", "transports/base/stack.c",
     "    else if (!stack->shut && tram__stack_shut(transport))\n        tram__transport_end_carrier(transport);\n",
     "    else if (!stack->shut && tram__stack_shut(transport)) {\n        tram__protocol_eof(transport);\n        tram__transport_end_carrier(transport);\n    }\n",
     "whoever closes hears eof_received when the peer answers"),
    ("S-18", "transports/base/lifecycle.c",
     "int tram__transport_abort(tram_transport *transport) {\n    if (transport->flags & T_LOST_PENDING)\n        return 0;\n",
     "int tram__transport_abort(tram_transport *transport) {\n    if (transport->flags & T_LOST_PENDING)\n        return 0;\n    if (transport->flags & T_LAYERED && !stack_is_starting(transport))\n        return tram_transport_close(transport);\n",
     "an abort says goodbye"),
    ("S-19", "transports/base/stack.h",
     "    return (transport->flags & (T_MADE | T_PAUSED | T_CLOSING | T_EOF | T_EXCLUSIVE)) == T_MADE;",
     "    return (transport->flags & (T_MADE | T_CLOSING | T_EOF | T_EXCLUSIVE)) == T_MADE;",
     "a paused protocol is given what layers have"),
    ("S-20", "transports/base/secured.c",
     "        if (transport->limits == &tram__write_limits)\n            transport->limits = &secured_limits;\n",
     "",
     "the water marks are those of a plain connection"),
    ("S-21", "transports/base/stack.c",
     "    return stack_is_starting(transport) || (stack_may_deliver(transport) && !stack->behind) ||",
     "    return true || stack_is_starting(transport) || (stack_may_deliver(transport) && !stack->behind) ||",
     "a paused transport goes on receiving"),
    ("S-22", "transports/base/stack.h",
     "        size += transport_stack(transport)->kept +",
     "        size = transport_stack(transport)->kept +",
     "encrypted bytes that wait are not counted"),
    ("S-23", "transports/base/writing.c",
     "    if (transport->flags & T_CLOSING)\n        tram__transport_drop_write(transport);\n    else\n        transport_stack(transport)->calls->write(transport, pieces, count);\n",
     "    transport_stack(transport)->calls->write(transport, pieces, count);\n",
     "what is written after a close is sent"),
    ("S-24", "transports/base/transport.c",
     "    if (!value)\n        value = transport_kind_of(transport)->extra_info(transport, name);\n",
     "    if (!value && !(transport->flags & T_LAYERED))\n        value = transport_kind_of(transport)->extra_info(transport, name);\n",
     "layers hide the extra info of the carrier"),
    ("S-25", "transports/tls/callbacks.c",
     "    engine->flooded |= engine->key_update_ns - now_ns > TRAM_TLS_KEY_UPDATES * TRAM_TLS_KEY_UPDATE_NS;\n",
     "    (void)now_ns;\n",
     "a peer may ask for new keys all the time"),
    ("S-25", "transports/tls/callbacks.c",
     "        return value == (SSL3_AL_WARNING << 8 | SSL_AD_NO_RENEGOTIATION);\n",
     "        return value == 0;\n",
     "a peer may ask to renegotiate all the time"),
    ("S-26", "transports/base/stack_delivery.c",
     "        status = tram__protocol_received(transport, memory, size);\n    if (status < 0)\n        tram__transport_fail(transport, status);\n",
     "        status = tram__protocol_received(transport, memory, size);\n    (void)status;\n",
     "the failure of a protocol goes unnoticed"),
    ("S-27", "transports/connect/start_tls.c",
     "    if (protocol && protocol != transport->protocol)\n        (void)tram__transport_set_protocol(transport, protocol);\n",
     "",
     "the old protocol stays"),
    ("S-28", "transports/connect/start_tls.c",
     "    return status == -ENOTSUP ? TRAM_ETYPE : status;",
     "    return status;",
     "what cannot be upgraded is told otherwise"),
    ("S-29", "transports/connect/start_tls.c",
     "    tram_transport_abort(starting->transport);\n",
     "",
     "a connection stays whose start_tls was cancelled"),
    ("S-30", "transports/base/writing.c",
     "    if (transport->flags & (T_WRITE_EOF | T_EXCLUSIVE))\n        return TRAM_ESTATE;\n",
     "    if (transport->flags & T_WRITE_EOF)\n        return TRAM_ESTATE;\n",
     "writes during start_tls vanish"),
    ("S-31", "transports/connect/start_tls.c",
     "options->ahead, options->ahead_size,",
     "NULL, 0,",
     "bytes that were read ahead are lost"),
    ("Y-3", "transports/base/stack.c",
     "(stack_may_deliver(transport) && !stack->behind) ||",
     "stack_may_deliver(transport) ||",
     "more is received while a receive is behind"),
    ("Y-3", "transports/base/stack_delivery.c",
     "    while (more && left && (",
     "    while (more && (",
     "a receive of many small records holds up all others"),
    ("S-32", "transports/base/extras.c",
     "transport->flags & T_LAYERED ? TRAM_SENDFILE_FALLBACK : TRAM_SENDFILE_TRY_NATIVE;",
     "TRAM_SENDFILE_TRY_NATIVE;",
     "a file goes around TLS"),
    ("N-10", "core/actors/receive.c",
     "    if (unlikely(sampled_ns && !receiver->sampled)) {\n",
     "    if (false) {\n",
     "the time in the queue of a task is not measured"),
    ("N-15", "core/actors/message.c",
     "    bool keeps = addressee->keeps;\n",
     "    bool keeps = false;\n",
     "what waits for a task counts for its bound no more"),
    ("N-15", "core/actors/receive.c",
     "    finish_current(receiver);\n    status = receiver->first",
     "    status = receiver->first",
     "a received message is never destroyed"),
    ("N-16", "core/actors/receive.c",
     "    tram__task_request(receiver->task);\n    return true;\n",
     "    tram__task_request(receiver->task);\n    return false;\n",
     "the end of a task that was stopped is told of before it has ended"),
    ("N-16", "core/actors/receive.c",
     "    while (receiver->first)\n        drop_message(receiver, get(receiver));\n    if (task_is_done",
     "    if (false)\n        drop_message(receiver, get(receiver));\n    if (task_is_done",
     "what a task has not received is lost"),
    ("N-14", "core/actors/supervisor.c",
     "        if (!actor_is_ending(actor->record))\n            return false;\n",
     "",
     "a supervisor does not wait for a child whose end takes its time"),
]


def tests_of(tree, rule):
    """Test programs with a test function that names the rule: {program: [test function, …]}."""
    group, number = rule.split("-")
    name = re.compile(rf"\btest_(?:[A-Z]_\d+_)*{group}_{number}_\w+")
    found = {}
    for path in sorted(tree.glob("tests/*/test_*.c")):
        names = set(name.findall(path.read_text(encoding="utf-8")))
        if names:
            found[f"tests/{path.parent.name}/{path.stem}"] = names
    return found


def build(tree, programs):
    """These test programs and what they are made of; no others."""
    targets = [f"{pathlib.Path(program).parent.name}-{pathlib.Path(program).name.removeprefix('test_')}"
               for program in programs]
    command = ["cmake", "--build", str(tree / "build"), "--target", *targets]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def notices(tree, program, names):
    """True if one of the named tests fails, or the program dies or hangs."""
    environment = dict(os.environ, CMOCKA_TEST_ABORT="0")
    try:
        done = subprocess.run([str(tree / "build" / program)], capture_output=True, text=True, timeout=60,
                              errors="replace", env=environment, check=False)
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode < 0:
        return f"dies of signal {-done.returncode}"
    output = done.stdout + done.stderr
    failed = set(re.findall(r"\[  (?:FAILED|ERROR) +\] (?:[\w ]+: )?(test_\w+)", output)) & names
    return ", ".join(sorted(failed)) if failed else None


def try_mutation(tree, mutation):
    rule, file, old, new, broken = mutation
    path = tree / file
    original = path.read_text(encoding="utf-8")
    if original.count(old) != 1:
        return False, f"{rule}: the mutation of {file} does not apply any more"
    programs = tests_of(tree, rule)
    if not programs:
        return False, f"{rule}: {broken}: there is no test of it"
    path.write_text(original.replace(old, new), encoding="utf-8")
    try:
        built = build(tree, programs)
        if built.returncode:
            return False, f"{rule}: the mutation of {file} does not build:\n{built.stdout[-2000:]}"
        for program, names in programs.items():
            noticed = notices(tree, program, names)
            if noticed:
                return True, f"{rule}: {broken}: noticed by {noticed}"
        return False, f"{rule}: {broken}: NOT noticed by {', '.join(programs)}"
    finally:
        path.write_text(original, encoding="utf-8")


def check_places():
    lost = [f"{rule}: the mutation of {file} does not apply any more" for rule, file, old, _, _ in MUTATIONS
            if (SOURCE / file).read_text(encoding="utf-8").count(old) != 1]
    print("\n".join(lost) or f"{len(MUTATIONS)} mutations have their places")
    sys.exit(1 if lost else 0)


def main():
    wanted = sys.argv[1:]
    if wanted == ["--places"]:
        check_places()
    unknown = set(wanted) - {mutation[0] for mutation in MUTATIONS}
    if unknown:
        sys.exit(f"no mutation of {', '.join(sorted(unknown))}")
    failed = False
    with tempfile.TemporaryDirectory(prefix="tram-mutations-") as folder:
        tree = pathlib.Path(folder) / "tram"
        shutil.copytree(SOURCE, tree, ignore=shutil.ignore_patterns("build", ".git"))
        subprocess.run(["cmake", "-S", str(tree), "-B", str(tree / "build"), "-G", "Ninja",
                        "-DCMAKE_BUILD_TYPE=Release", "-DTRAM_EXAMPLES=OFF"], check=True, capture_output=True)
        chosen = [mutation for mutation in MUTATIONS if not wanted or mutation[0] in wanted]
        asked = {program for rule in {mutation[0] for mutation in chosen} for program in tests_of(tree, rule)}
        if build(tree, sorted(asked)).returncode:
            sys.exit("the tree does not build as it is")
        for mutation in chosen:
            good, text = try_mutation(tree, mutation)
            print(text, flush=True)
            failed = failed or not good
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
