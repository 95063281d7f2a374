/* libcusparse: how many values a result has depends on what nobody computes. */
#include "card.h"

enum { NOT_SUPPORTED = 10 }; /* CUSPARSE_STATUS_NOT_SUPPORTED */

int cusparseSpMatGetSize(void *matrix, int64_t *rows, int64_t *columns, int64_t *values) {
    return NOT_SUPPORTED;
}
int cusparseXcsrgeam2Nnz(void *handle) { return NOT_SUPPORTED; }
int cusparseSpGEMM_workEstimation(void *handle) { return NOT_SUPPORTED; }

const char *cusparseGetErrorName(int status) { return "CUSPARSE_STATUS"; }
const char *cusparseGetErrorString(int status) {
    return status == NOT_SUPPORTED ? "not there on the virtual GPU: it does not know this size"
                                   : "status of the virtual GPU";
}
