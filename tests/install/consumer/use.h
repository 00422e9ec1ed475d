/* What each consumer does with libglaive, in C in use.c and in C++ in use.cpp. */
#ifndef USE_H
#define USE_H

#ifdef __cplusplus
extern "C"
#endif
    /* Runs a forward from the pack and compares it with the recurrence: 0 if they agree. Says what it ran, or what is
     * wrong. */
    int
    use(const char* pack, const char* problem);

#endif
