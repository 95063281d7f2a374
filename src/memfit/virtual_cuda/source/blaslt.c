/* libcublasLt: descriptors that hold nothing, and one algorithm that suits every product. */
#include "card.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* cublasLtMatmulHeuristicResult_t: algorithm 64, workspace size 8, state 4, waves 4, reserved 16. */
enum { RESULT_BYTES = 96, DESCRIPTOR_BYTES = 256 };

static int make(void **descriptor) { *descriptor = calloc(1, DESCRIPTOR_BYTES); return 0; }
static int drop(void *descriptor) { free(descriptor); return 0; }

int cublasLtCreate(void **handle) { return make(handle); }
int cublasLtDestroy(void *handle) { return drop(handle); }
int cublasLtMatmulDescCreate(void **descriptor, int compute, int scale) { return make(descriptor); }
int cublasLtMatmulDescDestroy(void *descriptor) { return drop(descriptor); }
int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t columns,
                               int64_t leading) {
    return make(layout);
}
int cublasLtMatrixLayoutDestroy(void *layout) { return drop(layout); }
int cublasLtMatmulPreferenceCreate(void **preference) { return make(preference); }
int cublasLtMatmulPreferenceDestroy(void *preference) { return drop(preference); }
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c,
                                   void *d, void *preference, int asked, char *results,
                                   int *found) {
    memset(results, 0, RESULT_BYTES);
    *found = 1;
    return 0;
}
const char *cublasLtGetStatusString(int status) { return "status of the virtual GPU"; }
size_t cublasLtGetVersion(void) { return CUDA_VERSION * 10; }
size_t cublasLtGetCudartVersion(void) { return CUDA_VERSION; }
