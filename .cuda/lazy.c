/* Opens a shared library when one of its functions is first called, so that a program linked with this file starts
 * where the library is not there. build.py compiles it once per library, with the names of its functions and the
 * assembler beside it: NAMES, SLOTS and FIND are symbols of that library alone.
 *
 * A function that is not there answers as the library would if it had not been initialised (STATUS), and the caller
 * handles that error like any other. Functions that answer a text or a count have an answer of that kind. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>

enum answer { ANSWERS_STATUS, ANSWERS_TEXT, ANSWERS_COUNT };

struct function {
    const char *name;
    enum answer answer;
};

extern const struct function NAMES[];
extern void *SLOTS[];

static void *library;
static pthread_once_t opened = PTHREAD_ONCE_INIT;

static void open_library(void) { library = dlopen(SONAME, RTLD_NOW | RTLD_LOCAL); }

static uintptr_t no_status(void) { return STATUS; }
static const char *no_text(void) { return SONAME " is not there"; }
static uintptr_t no_count(void) { return 0; }

/* The address of the function of that number; later calls jump there directly. */
__attribute__((visibility("hidden"))) void *FIND(uintptr_t number) {
    pthread_once(&opened, open_library);
    void *function = library ? dlsym(library, NAMES[number].name) : 0;
    if (!function) {
        switch (NAMES[number].answer) {
        case ANSWERS_STATUS: function = (void *)no_status; break;
        case ANSWERS_TEXT: function = (void *)no_text; break;
        case ANSWERS_COUNT: function = (void *)no_count; break;
        }
    }
    __atomic_store_n(&SLOTS[number], function, __ATOMIC_RELEASE);
    return function;
}
