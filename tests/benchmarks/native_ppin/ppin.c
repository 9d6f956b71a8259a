/* SPDX-FileCopyrightText: The hsmops.primus authors
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A ppin for benchmarks: it costs a client what a native program costs, and not the start of an interpreter.
 *
 * It talks as the vendor documents ppin, and as tests/emulator does without any switch: command line, prompts, listing,
 * --test, error codes, both files and the environment variables that name them. It is not the vendor's program, and no
 * emulator either: there is no HSM behind it. It connects to nothing, makes permanent secrets of random digits, and
 * accepts every password but WRONG_PASSWORD, of which it keeps count in the file rejected-logins beside primus.cfg.
 * It takes no password from the command line, knows neither --fetchlog nor --fortinet, and reads of libconfig's syntax
 * the groups, strings and numbers that a rendered primus.cfg consists of.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#ifndef WRONG_PASSWORD
#define WRONG_PASSWORD ""
#endif

#define DEPTH 8
#define MANY 20000 /* HSMs, slots and entries, of each */

enum { DUPLICATE = 0x80000003, NOT_FOUND = 0x8000000A, NOTHING_CONFIGURED = 0x80005001, NO_CONFIG = 0x80005003,
       NO_SECRETS = 0x80005004, BAD_CONFIG = 0x80005005, BAD_SECRETS = 0x80005006, NOT_WRITABLE = 0x80005007,
       NOT_UPDATED = 0x80005010, NOT_REMOVED = 0x80005011, NOT_CONFIGURED = 0x80005012, REJECTED = 0x80005017 };

struct hsm { char *key, *host, *port; };
struct slot { int hsm; char *key, *user, *proxy; long id; };
struct entry { char *key, *name, *secret; };

static struct hsm hsms[MANY];
static struct slot slots[MANY];
static struct entry users[MANY], proxies[MANY];
static int n_hsms, n_slots, n_users, n_proxies;
static const char *config_path, *secrets_path;

static void fail(unsigned code)
{
    fflush(stdout);
    fprintf(stderr, "Error: 0x%08X\n", code);
    exit(1);
}

static void stop(const char *why)
{
    fflush(stdout);
    fprintf(stderr, "ppin: %s\n", why);
    exit(1);
}

static int same(const char *one, const char *other) { return one && other && !strcmp(one, other); }

/* Files */

static char *content(const char *path, unsigned missing, unsigned bad)
{
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t size = 0;
    if (!file)
        fail(access(path, F_OK) ? missing : bad);
    if (getdelim(&text, &size, '\0', file) < 0)
        text = strdup("");
    fclose(file);
    return text;
}

static int in_word(char sign) { return isalnum((unsigned char)sign) || (sign && strchr("-+_.*", sign)); }

/* The next word, string or sign, as a copy; *kind is 'w', '"', the sign, or 0 at the end. */
static char *token(char **at, int *kind)
{
    char *from = *at, *end, *text, *into;
    for (;;) {
        from += strspn(from, " \t\r\n\f\v");
        if (*from == '#' || !strncmp(from, "//", 2))
            from += strcspn(from, "\n");
        else if (!strncmp(from, "/*", 2) && strstr(from + 2, "*/"))
            from = strstr(from + 2, "*/") + 2;
        else
            break;
    }
    *kind = in_word(*from) ? 'w' : *from;
    end = from + (*kind != 0);
    if (*kind == 'w')
        while (in_word(*end))
            end++;
    if (*kind == '"')
        for (from++; *end && *end != '"';)
            end += *end == '\\' && end[1] ? 2 : 1;
    text = into = malloc((size_t)(end - from) + 1);
    while (from < end) {
        unsigned value;
        if (*kind == '"' && *from == '\\' && sscanf(from, "\\x%2x", &value) == 1) {
            *into++ = (char)value;
            from += 4;
        } else {
            from += *kind == '"' && *from == '\\' && strchr("\"\\", from[1]);
            *into++ = *from++;
        }
    }
    *into = '\0';
    *at = end + (*kind == '"' && *end);
    return text;
}

typedef int (*taker)(int depth, char **path, const char *name, char *value);

/* Hand each setting, with the groups that it is in, to take, which returns 0 if it is wrong. Returns 0, too, then. */
static int parse(char *text, taker take)
{
    char *path[DEPTH], *name, *value;
    int depth = 0, kind;
    while (name = token(&text, &kind), kind) {
        if (kind == ';')
            continue;
        if (kind == '}') {
            if (--depth < 0)
                return 0;
            continue;
        }
        if (kind != 'w' || (token(&text, &kind), kind != '=' && kind != ':'))
            return 0;
        value = token(&text, &kind);
        if (kind == '{' && depth < DEPTH)
            path[depth++] = name;
        else if ((kind != 'w' && kind != '"') || !take(depth, path, name, value))
            return 0;
    }
    return depth == 0;
}

static int take_config(int depth, char **path, const char *name, char *value)
{
    if (depth < 3 || !same(path[0], "primus") || !same(path[1], "hsms"))
        return 1;
    if (!n_hsms || !same(hsms[n_hsms - 1].key, path[2])) {
        if (n_hsms == MANY)
            return 0;
        hsms[n_hsms++].key = path[2];
    }
    if (depth == 3 && same(name, "host"))
        hsms[n_hsms - 1].host = value;
    if (depth == 3 && same(name, "port"))
        hsms[n_hsms - 1].port = value;
    if (depth < 5 || !same(path[3], "slots"))
        return 1;
    if (!n_slots || slots[n_slots - 1].hsm != n_hsms - 1 || !same(slots[n_slots - 1].key, path[4])) {
        if (n_slots == MANY)
            return 0;
        slots[n_slots].hsm = n_hsms - 1;
        slots[n_slots++].key = path[4];
    }
    if (same(name, "user_name"))
        slots[n_slots - 1].user = value;
    if (same(name, "proxy_user"))
        slots[n_slots - 1].proxy = *value ? value : NULL;
    if (same(name, "id"))
        slots[n_slots - 1].id = strtol(value, NULL, 0);
    return 1;
}

static int take_secrets(int depth, char **path, const char *name, char *value)
{
    int is_user = depth == 3 && same(path[1], "users");
    struct entry *entries = is_user ? users : proxies;
    int *count = is_user ? &n_users : &n_proxies;
    if (depth != 3 || !same(path[0], "primus") || (!is_user && !same(path[1], "proxies")))
        return 1;
    if (!*count || !same(entries[*count - 1].key, path[2])) {
        if (*count == MANY)
            return 0;
        entries[(*count)++].key = path[2];
    }
    *(same(name, "name") ? &entries[*count - 1].name : &entries[*count - 1].secret) = value;
    return 1;
}

static void write_entries(FILE *file, const char *group, const char *key, const struct entry *entries, int count)
{
    fprintf(file, "  %s : {\n", group);
    for (int i = 0; i < count; i++) {
        fprintf(file, "    %s%d : {\n      name = \"", key, i);
        for (const char *at = entries[i].name; *at; at++)
            fprintf(file, strchr("\"\\", *at) ? "\\%c" : "%c", *at);
        fprintf(file, "\";\n      secret = \"%s\";\n    };\n", entries[i].secret);
    }
    fprintf(file, "  };\n");
}

/* Rewrite the secrets file in place, as the vendor's may do. */
static void write_secrets(void)
{
    FILE *file = fopen(secrets_path, "r+");
    if (!file || ftruncate(fileno(file), 0))
        fail(NOT_WRITABLE);
    fprintf(file, "version = \"1.0\";\nprimus : {\n");
    write_entries(file, "users", "user", users, n_users);
    write_entries(file, "proxies", "proxy", proxies, n_proxies);
    fprintf(file, "};\n");
    if (fclose(file))
        fail(NOT_WRITABLE);
}

static int find(const struct entry *entries, int count, const char *name)
{
    while (count-- && !same(entries[count].name, name))
        ;
    return count;
}

static void put(struct entry *entries, int *count, char *name)
{
    unsigned char random[32];
    int place = find(entries, *count, name), source = open("/dev/urandom", O_RDONLY);
    if (source < 0 || read(source, random, sizeof random) != sizeof random || *count == MANY)
        stop("cannot make a secret");
    close(source);
    if (place < 0)
        place = (*count)++;
    entries[place].name = name;
    entries[place].secret = calloc(2, sizeof random + 1);
    for (size_t i = 0; i < sizeof random; i++)
        sprintf(entries[place].secret + 2 * i, "%02x", random[i]);
}

static int drop(struct entry *entries, int *count, const char *name)
{
    int place = find(entries, *count, name);
    if (place < 0)
        return 0;
    memmove(entries + place, entries + place + 1, (size_t)(--*count - place) * sizeof *entries);
    return 1;
}

/* What it says and asks */

static void header(void) { puts("********************\nPrimus Permanent PIN\n********************"); }

static const char *state(int configured) { return configured ? "Configured" : "MISSING"; }

static void list(int with_slots)
{
    int number = 0;
    header();
    for (int i = 0; with_slots && i < n_slots; i++)
        printf("[%02d] slot-id %ld: user '%s' permanent secret: %s\n", i + 1, slots[i].id, slots[i].user,
               state(find(users, n_users, slots[i].user) >= 0));
    for (int i = 0; i < n_slots; i++)
        if (slots[i].proxy)
            printf("[%02d] service/proxy user '%s' permanent secret: %s\n", ++number, slots[i].proxy,
                   state(find(proxies, n_proxies, slots[i].proxy) >= 0));
}

/* Ask on the controlling terminal, with no echo. Returns whether the password is a right one. */
static int ask(const char *kind, const char *user, const char *before_colon, const char *end)
{
    struct termios normal, silent;
    char answer[1024];
    FILE *terminal = fopen("/dev/tty", "r+");
    if (!terminal || tcgetattr(fileno(terminal), &normal))
        stop("no terminal to ask on");
    fflush(stdout);
    silent = normal;
    silent.c_lflag &= (tcflag_t)~ECHO;
    tcsetattr(fileno(terminal), TCSAFLUSH, &silent);
    fprintf(terminal, "Provide %s password for '%s'%s: ", kind, user, before_colon);
    fflush(terminal);
    if (!fgets(answer, sizeof answer, terminal))
        stop("no password given");
    tcsetattr(fileno(terminal), TCSADRAIN, &normal);
    fseek(terminal, 0, SEEK_CUR);
    fputs(end, terminal);
    fclose(terminal);
    answer[strcspn(answer, "\r\n")] = '\0';
    return !same(answer, WRONG_PASSWORD);
}

static void reject(const char *kind, const char *user)
{
    char *path = NULL;
    const char *slash = strrchr(config_path, '/');
    FILE *file;
    if (asprintf(&path, "%.*srejected-logins", slash ? (int)(slash - config_path) + 1 : 0, config_path) < 0)
        stop("out of memory");
    file = fopen(path, "a");
    if (!file || fprintf(file, "%s %s\n", kind, user) < 0 || fclose(file))
        stop("cannot count a rejected login");
    fail(REJECTED);
}

/* Commands */

static void fetch(char *user, int update)
{
    int setup_is_right, present = find(users, n_users, user) >= 0;
    if (present != update)
        fail(update ? NOT_UPDATED : DUPLICATE);
    header();
    setup_is_right = ask("setup", user, "", "\n");
    ask("PKCS11", user, "", "\n");
    for (int i = 0; i < n_slots; i++)
        if (same(slots[i].user, user) && slots[i].proxy && find(proxies, n_proxies, slots[i].proxy) < 0)
            setup_is_right = -1;
    if (setup_is_right < 1) {
        if (update && drop(users, &n_users, user))
            write_secrets();
        if (setup_is_right < 0)
            fail(NOT_FOUND);
        reject("setup", user);
    }
    put(users, &n_users, user);
    write_secrets();
}

static int test(const char *user, const char *hsm, const char *slot, const char *slot_id)
{
    int tested = 0, partitions = 0, failures = 0, last = -1, reached = 0;
    printf("Load config file: '%s'\n", config_path);
    for (int i = 0; i < n_slots; i++) {
        const struct slot *this = &slots[i];
        const struct hsm *at = &hsms[this->hsm];
        if ((user && !same(user, this->user)) || (hsm && !same(hsm, at->key) && !same(hsm, at->host))
            || (slot && !same(slot, this->key) && !same(slot, this->key + strcspn(this->key, "0123456789")))
            || (slot_id && atol(slot_id) != this->id))
            continue;
        if (this->hsm != last) {
            last = this->hsm;
            tested++;
            reached = !this->proxy || find(proxies, n_proxies, this->proxy) >= 0;
            printf(reached ? "\n%s: Connect to '%s' on port %s, firmware: RP-2.10.0-T \n"
                           : "\n%s: Connect to '%s' on port %s failed: 0x8000000A\n", at->key, at->host, at->port);
            failures += !reached;
        }
        if (!reached)
            continue;
        int good = find(users, n_users, this->user) >= 0;
        printf("    %s (id=%ld), user=%s: %s\n", this->key, this->id, this->user, good ? "OK" : "FAILED (0x8000000A)");
        partitions++;
        failures += !good;
    }
    printf("\nNumber of tested HSMs: %d (number of partitions: %d)\nNumber of failures: %d\n", tested, partitions,
           failures);
    return failures != 0;
}

static const char *place(const char *given, const char *variable, const char *name)
{
    char *path = NULL, exe[4096] = "";
    if (given || (given = getenv(variable)))
        return given;
    if (asprintf(&path, "/etc/primus/%s", name) > 0 && !access(path, F_OK))
        return path;
    if (readlink("/proc/self/exe", exe, sizeof exe - 1) > 0)
        for (int i = 0; i < 2 && strrchr(exe, '/'); i++)
            *strrchr(exe, '/') = '\0';
    return asprintf(&path, "%s/etc/%s", exe, name) > 0 ? path : NULL;
}

int main(int argc, char **argv)
{
    static char *values[4]; /* of the options that follow */
    const char *long_names[] = {"--user", "--hsm", "--slot", "--slotid"}, *config = NULL, *secrets = NULL;
    char command = 0, *user = NULL, option;
    int known = 0;
    for (int i = 1; i < argc; i++) {
        if (same(argv[i], "--test")) {
            command = 't';
        } else if (!strncmp(argv[i], "--", 2)) {
            int which = 0;
            while (which < 4 && !same(argv[i], long_names[which]))
                which++;
            if (which == 4 || ++i == argc)
                stop("this option is not known, or has no value");
            values[which] = argv[i];
        } else if (*argv[i] == '-') {
            for (char *letter = argv[i] + 1; (option = *letter); letter++) {
                if (strchr("hvlaurpxt", option)) {
                    command = option;
                    continue;
                }
                if (!strchr("ecs", option) || letter[1] || ++i == argc)
                    stop("this option is not known, or has no value");
                *(option == 'e' ? (const char **)&user : option == 'c' ? &config : &secrets) = argv[i];
                break;
            }
        } else {
            stop("passwords on the command line are not taken");
        }
    }
    if (!command || (strchr("aurpx", command) && !user))
        stop("no command, or no user");
    if (command == 'h' || command == 'v') {
        puts(command == 'v' ? "Primus HSM PKCS#11 2.2.4" : "Usage: ppin [-c FILE] [-s FILE] [-hvlaurpxt] [-e USER]");
        return 0;
    }
    config_path = place(config, "SECUROSYS_PKCS11_CONF", "primus.cfg");
    secrets_path = place(secrets, "SECUROSYS_SECRETS_CONF", ".secrets.cfg");
    if (!parse(content(config_path, NO_CONFIG, BAD_CONFIG), take_config))
        fail(BAD_CONFIG);
    if (!n_slots)
        fail(NOTHING_CONFIGURED);
    if (!parse(content(secrets_path, NO_SECRETS, BAD_SECRETS), take_secrets))
        fail(BAD_SECRETS);
    if (command == 't')
        return test(values[0], values[1], values[2], values[3]);
    if (strchr("aurpx", command)) {
        if (access(secrets_path, W_OK))
            fail(NOT_WRITABLE);
        for (int i = 0; i < n_slots; i++)
            known |= same(strchr("px", command) ? slots[i].proxy : slots[i].user, user);
        if (!known)
            fail(NOT_CONFIGURED);
    }
    if (command == 'a' || command == 'u')
        fetch(user, command == 'u');
    if (command == 'p') {
        header();
        if (!ask("proxy", user, " ", "\n\n"))
            reject("proxy", user);
        put(proxies, &n_proxies, user);
        write_secrets();
    }
    if (command == 'r' || command == 'x') {
        if (!(command == 'r' ? drop(users, &n_users, user) : drop(proxies, &n_proxies, user)))
            fail(NOT_REMOVED);
        write_secrets();
    }
    list(command != 'x');
    return 0;
}
