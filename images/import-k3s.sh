#!/bin/sh
# Brings the image that skaffold has just built ($SKAFFOLD_IMAGE), under all its
# names, to the k3s on this machine. Profile k3s of skaffold.yaml runs it.
set -eu
: "${SKAFFOLD_IMAGE:?skaffold sets it after a build}"
names=$(docker image inspect --format '{{join .RepoTags " "}}' "$SKAFFOLD_IMAGE")
archive=$(mktemp)
trap 'rm -f "$archive"' EXIT
# A file between them, for a pipe would hide that docker failed.
# shellcheck disable=SC2086 # names are words
docker save --output "$archive" $names
sudo k3s ctr images import "$archive"
