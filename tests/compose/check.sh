# Steps, checks and what they come to. Sourced by run.

passed=0
failed=0
background=

step() { printf '\n== %s\n' "$*"; }

# check WHAT COMMAND...: passes if the command succeeds; what it said is shown if it does not.
check() {
    local what="$1" said
    shift
    if said="$("$@" 2>&1)"; then
        passed=$((passed + 1))
        printf '  ok    %s\n' "$what"
    else
        failed=$((failed + 1))
        printf '  FAIL  %s\n' "$what"
        printf '%s\n' "$said" | tail -n 20 | sed 's/^/        /'
    fi
}

# equal WHAT EXPECTED ACTUAL
equal() { check "$1" same "$2" "$3"; }

same() {
    [[ "$1" == "$2" ]] && return
    printf 'expected %s\n     got %s\n' "$1" "$2"
    return 1
}

# eventually SECONDS COMMAND...: tries until it succeeds; what the last attempt said is passed on.
eventually() {
    local deadline=$((SECONDS + $1)) said
    shift
    until said="$("$@" 2>&1)"; do
        if ((SECONDS >= deadline)); then
            printf 'not within the time given: %s\n%s\n' "$*" "$said"
            return 1
        fi
        sleep 0.3
    done
}

# quietly LOG COMMAND...: what takes long, in the background, so that a signal to this script is not waited out.
quietly() {
    local log="$1" code=0
    shift
    "$@" >"$log" 2>&1 &
    background=$!
    wait "$background" || code=$?
    background=
    return "$code"
}

# Ends the run: what follows would only fail for the same reason.
give_up() {
    printf '\ntests/compose/run: %s\n' "$1" >&2
    exit "${2:-1}"
}

summary() {
    printf '\n%d passed, %d failed, in %d s\n' "$passed" "$failed" "$SECONDS"
    ((failed == 0 && passed > 0))
}
