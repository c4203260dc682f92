#!/bin/sh
# Compares the verdicts of a program with those in cases.json: see README.md.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || { echo "usage: run.sh PROGRAM [ARGUMENT...]" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

jq -c '. as $file | .cases[] | {case: .} + ($file | {now, secret, jwe_secret, jwks, pem})' "$here/cases.json" > "$work/input"
if [ "${APPROOV_CHALLENGES:-}" ]; then
  jq -r '.cases[] | if .error == null then "ok" else .challenge // "null" end' "$here/cases.json" > "$work/expected"
else
  jq -r '.cases[] | .error // "ok"' "$here/cases.json" > "$work/expected"
fi
jq -r '.cases[] | .name' "$here/cases.json" > "$work/names"
"$@" < "$work/input" > "$work/said"

total=$(wc -l < "$work/expected")
lines=$(wc -l < "$work/said")
[ "$lines" -eq "$total" ] || { echo "the program wrote $lines lines for $total cases" >&2; exit 1; }
tab=$(printf '\t')
paste "$work/expected" "$work/said" "$work/names" > "$work/table"
passed=0 failed=0 skipped=0
while IFS=$tab read -r expected said name; do
  case $said in
    "$expected") passed=$((passed + 1)) ;;
    skip) skipped=$((skipped + 1)) ;;
    *) failed=$((failed + 1)); echo "$name: expected $expected, got $said" ;;
  esac
done < "$work/table"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ] && [ $((skipped * 10)) -lt "$total" ]
