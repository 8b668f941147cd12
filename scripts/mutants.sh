#!/usr/bin/env bash
# Shows that the tests can fail: each patch in tests/mutants breaks one rule on purpose, and the tests that it names must
# notice. Each is applied to a throw-away copy of the tree, built and tested there; then comes the next.
#
#   scripts/mutants.sh            all of them
#   scripts/mutants.sh NAME…      these
#
# A patch begins with what it breaks, in a line, and "tests: " with what cargo test is given. Exits with 1 if the tests
# miss one (it survives), or if one does not apply or compile any more: bring it up to date with the code then.
set -euo pipefail
cd "$(dirname "$0")/.."

tree=$(pwd)
# Apart from the usual folder, whose builds of the tree itself would be undone; one for all, so each costs one small build.
export CARGO_TARGET_DIR=${MUTANTS_TARGET_DIR:-${CARGO_TARGET_DIR:-$tree/target}/mutants} RUST_BACKTRACE=0
copy=$(mktemp -d)
trap 'git worktree remove --force "$copy" 2>/dev/null || rm -rf "$copy"; rm -f "$copy.log"' EXIT
# With what is changed and not committed yet; files that git does not know are left out.
git worktree add --quiet --detach --force "$copy" "$(git stash create | grep . || git rev-parse HEAD)"
# The copy brings no Postgres of its own.
[ -d .postgres ] && ln -s "$tree/.postgres" "$copy/.postgres"

if [ $# -gt 0 ]; then patches=("${@/#/tests/mutants/}") && patches=("${patches[@]/%/.patch}"); else patches=(tests/mutants/*.patch); fi
tests_of() { sed -n 's/^tests: //p' "$1"; }
build() { (cd "$copy" && cargo test --no-run $1) >"$copy.log" 2>&1; }
run() { (cd "$copy" && timeout 900 cargo test $1) >"$copy.log" 2>&1; }

echo "the unbroken tree must pass"
for patch in "${patches[@]}"; do tests_of "$patch"; done | sort -u | while read -r tests; do
    run "$tests" || { tail -n 40 "$copy.log"; echo "cargo test $tests fails on the unbroken tree"; exit 1; }
    echo "  passes: cargo test $tests"
done

bad=0
for patch in "${patches[@]}"; do
    tests=$(tests_of "$patch")
    started=$SECONDS
    if ! git -C "$copy" apply -C1 "$tree/$patch" 2>"$copy.log"; then
        outcome="does not apply"
    elif ! build "$tests"; then
        outcome="does not compile"
    elif run "$tests"; then
        outcome="SURVIVES"
    else
        killer=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$copy.log" | head -n 1)
        outcome="killed by ${killer:-the time it takes}"
    fi
    case $outcome in killed*) ;; *) bad=$((bad + 1)) ;; esac
    printf '%-24s %4d s  %s\n' "$(basename "$patch" .patch)" $((SECONDS - started)) "$outcome"
    git -C "$copy" checkout --quiet -- .
done
[ "$bad" -eq 0 ] || { echo "$bad of ${#patches[@]} mutants went unnoticed or are out of date"; exit 1; }
echo "all ${#patches[@]} mutants were noticed"
