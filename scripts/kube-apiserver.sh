#!/usr/bin/env bash
# A small real Kubernetes API server, to test the bridge with: Kubernetes' own apiextensions-apiserver, which serves
# CustomResourceDefinitions and what they define, out of the distribution's source package (the distribution has no binary of
# it). Prints where it is. Once: two or three minutes. Needs root, for what it is built with.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

folder=$cache/kube-apiserver
program=$folder/apiextensions-apiserver
if [ ! -x "$program" ]; then
    # Its reflection needs a newer module than the one beside it with any Go that the distribution has.
    reflect=golang-github-modern-go-reflect2-dev
    install_missing "to build Kubernetes' API server for custom resources" golang-go dpkg-dev "$reflect"
    say "building Kubernetes' API server for custom resources"
    rm -rf "$folder"
    mkdir -p "$folder"/{lists/partial,archives/partial,src/k8s.io,build}
    # Sources come from where this machine's packages come from, signed by the same keys.
    keys=
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ ! -e "$keyring" ] || keys="[signed-by=$keyring]"
    apt-get indextargets --format "deb-src $keys \$(REPO_URI) \$(CODENAME) \$(COMPONENT)" 'Identifier: Packages' \
        'Created-By: Packages' | sort -u >"$folder/sources.list"
    apt=(-q -o "Dir::Etc::SourceList=$folder/sources.list" -o "Dir::Etc::SourceParts=/dev/null" -o "APT::Sandbox::User=root"
        -o "Dir::State::lists=$folder/lists" -o "Dir::Cache=$folder")
    apt-get "${apt[@]}" update >&2
    (cd "$folder" && apt-get "${apt[@]}" source kubernetes >&2)
    tree=$(find "$folder" -maxdepth 1 -type d -name 'kubernetes-*' | head -n 1)
    : "${tree:?no source package kubernetes in this distribution}"
    own=$tree/vendor/github.com/modern-go/reflect2
    rm -f "$own"/*.go "$own"/*.s
    for file in /usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s}; do
        case $file in *_test.go) ;; *) cp -L "$file" "$own/" ;; esac
    done
    ln -s "$tree" "$folder/src/k8s.io/kubernetes"
    (cd "$folder/src/k8s.io/kubernetes" &&
        GOPATH=$folder GOCACHE=$folder/build GO111MODULE=off CGO_ENABLED=0 \
            go build -o "$program.new" ./vendor/k8s.io/apiextensions-apiserver) >&2
    rm -rf "$folder"/{lists,archives,src,build} "$tree" "$folder"/*.dsc "$folder"/*.tar.* "$folder"/*.bin
    mv "$program.new" "$program"
fi
printf '%s\n' "$program"
