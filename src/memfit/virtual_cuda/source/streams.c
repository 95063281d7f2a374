/* libcudart: streams and events are numbers, and everything on them is done at once. */
#include "card.h"

enum { OK = 0 };

static int new_handle(void **handle) {
    static uintptr_t next = 0x1000;
    *handle = (void *)__atomic_add_fetch(&next, 16, __ATOMIC_RELAXED);
    return OK;
}
int cudaStreamCreate(void **stream) { return new_handle(stream); }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { return new_handle(stream); }
int cudaStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    return new_handle(stream);
}
int cudaStreamGetPriority(void *stream, int *priority) { *priority = 0; return OK; }
int cudaEventCreate(void **event) { return new_handle(event); }
int cudaEventCreateWithFlags(void **event, unsigned flags) { return new_handle(event); }
int cudaEventElapsedTime(float *milliseconds, void *start, void *end) {
    *milliseconds = 1;
    return OK;
}

/* -- graphs: a stream that is captured, and nothing in the graph --------------------------------- */

enum { NOT_CAPTURED = 0, CAPTURED = 1 };
static void *captured;
static unsigned long long captures;

/* One capture at a time, as PyTorch makes them. */
int cudaStreamBeginCapture(void *stream, int mode) {
    captured = stream;
    captures++;
    return OK;
}
int cudaStreamEndCapture(void *stream, void **graph) {
    captured = NULL;
    return new_handle(graph);
}
int cudaStreamIsCapturing(void *stream, int *status) {
    *status = captured && stream == captured ? CAPTURED : NOT_CAPTURED;
    return OK;
}
int cudaStreamGetCaptureInfo_v3(void *stream, int *status, unsigned long long *id, void **graph,
                                void **needs, void **edges, size_t *count) {
    cudaStreamIsCapturing(stream, status);
    if (id) *id = captures;
    if (graph) *graph = (void *)1;
    if (needs) *needs = NULL;
    if (edges) *edges = NULL;
    if (count) *count = 0;
    return OK;
}
#if CUDA_VERSION >= 13000
int cudaStreamGetCaptureInfo(void *stream, int *status, unsigned long long *id, void **graph,
                             void **needs, void **edges, size_t *count) {
    return cudaStreamGetCaptureInfo_v3(stream, status, id, graph, needs, edges, count);
}
#else
int cudaStreamGetCaptureInfo(void *stream, int *status, unsigned long long *id) {
    return cudaStreamGetCaptureInfo_v3(stream, status, id, NULL, NULL, NULL, NULL);
}
#endif
int cudaStreamGetCaptureInfo_v2(void *stream, int *status, unsigned long long *id, void **graph,
                                void **needs, size_t *count) {
    return cudaStreamGetCaptureInfo_v3(stream, status, id, graph, needs, NULL, count);
}
int cudaGraphCreate(void **graph, unsigned flags) { return new_handle(graph); }
int cudaGraphInstantiate(void **runnable, void *graph, unsigned long long flags) {
    return new_handle(runnable);
}
int cudaGraphInstantiateWithFlags(void **runnable, void *graph, unsigned long long flags) {
    return new_handle(runnable);
}
/* Not empty, or PyTorch would warn. */
int cudaGraphGetNodes(void *graph, void **nodes, size_t *count) {
    if (nodes && *count) *nodes = (void *)1;
    *count = 1;
    return OK;
}
