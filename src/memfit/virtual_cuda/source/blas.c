/* libcublas: matrix products that compute nothing. PyTorch allocates their workspace itself. */
#include "card.h"
#include <stdlib.h>

int cublasCreate_v2(void **handle) { *handle = malloc(64); return 0; }
int cublasDestroy_v2(void *handle) { free(handle); return 0; }
int cublasGetMathMode(void *handle, int *mode) { *mode = 0; return 0; }
int cublasGetPointerMode_v2(void *handle, int *mode) { *mode = 0; return 0; }
int cublasGetStream_v2(void *handle, void **stream) { *stream = 0; return 0; }
int cublasGetVersion_v2(void *handle, int *version) { *version = CUDA_VERSION * 10; return 0; }
const char *cublasGetStatusString(int status) { return "status of the virtual GPU"; }
const char *cublasGetStatusName(int status) { return "CUBLAS_STATUS"; }
