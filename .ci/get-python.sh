#!/usr/bin/env bash
# Get a Python that this machine lacks from a newer release of Debian, into a folder of its own.
#
#   .ci/get-python.sh 3.14 FOLDER     unpacked, together with the libraries that it needs
#   .ci/get-python.sh 3.13t FOLDER    built from Debian's source, without the global interpreter lock
#
# FOLDER/usr/bin then has that Python and no other program. Nothing is installed but what the work
# itself needs. Exits with 1, and one line on stderr that says why, where it cannot be done.
set -euo pipefail
readonly version=$1 folder=$2
case $version in
    3.14) readonly release=forky kind=deb tools=(patchelf) ;;
    3.13t) readonly release=trixie kind=deb-src tools=(gcc libc6-dev libssl-dev make xz-utils zlib1g-dev) ;;
    *) echo "no recipe for Python $version" >&2 && exit 2 ;;
esac

main() {
    mkdir -p "$folder"
    # One run at a time; what another one has finished meanwhile is good.
    exec 9>"$folder/lock"
    flock 9
    [[ ! -e $folder/complete ]] || exit 0
    [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null || cannot "this takes apt-get and root"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Created-By: Packages' | head -n 1)
    [[ -n $mirror ]] || cannot "this system has no mirror of Debian"
    mkdir -p "$folder/work"
    cd "$folder/work"
    mkdir -p state/lists/partial cache/archives/partial
    : >status
    echo "$kind $mirror $release main" >sources.list
    {
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${tools[@]}"
        newer_apt_get update
        if [[ $kind == deb ]]; then unpack; else build; fi
    } >log 2>&1 9>&- || cannot "$(tail -n 1 log)"
    find "$folder/usr/bin" -mindepth 1 ! -name "python$version" -delete
    touch "$folder/complete"
    rm -r "$folder/work"
}

cannot() {
    echo "Python $version cannot be had here: $1" >&2
    exit 1
}

# apt-get for the newer release alone, on a system where nothing is installed yet.
newer_apt_get() {
    apt-get -qq -o APT::Sandbox::User=root -o Dir::Etc::SourceList="$PWD/sources.list" \
        -o Dir::Etc::SourceParts=/dev/null -o Dir::State="$PWD/state" \
        -o Dir::State::status="$PWD/status" -o Dir::Cache="$PWD/cache" "$@"
}

# Its libraries are newer than those of this system, so the program is made to find its own.
unpack() {
    local archive loader
    newer_apt_get -y --no-install-recommends --download-only install "python$version-venv"
    for archive in cache/archives/*.deb; do
        dpkg-deb -x "$archive" "$folder"
    done
    loader=$(echo "$folder"/usr/lib/*/ld-linux-*.so.*)
    patchelf --set-interpreter "$loader" --force-rpath --set-rpath "${loader%/*}" \
        "$folder/usr/bin/python$version"
    # Where Debian keeps the pip that new environments get.
    grep -rlI /usr/share/python-wheels "$folder/usr/lib/python$version" |
        xargs sed -i "s|/usr/share/python-wheels|$folder/usr/share/python-wheels|g"
}

build() {
    newer_apt_get source --download-only "python${version%t}"
    tar -xf python*.orig.tar.xz
    cd Python-*
    ./configure -q --prefix="$folder/usr" --disable-gil --disable-test-modules --without-ensurepip \
        OPT="-O2 -DNDEBUG"
    make -s -j"$(nproc)"
    make -s install
}

main
