# shellcheck shell=bash
# Small busybox initramfs archives. A kernel tree DIR holds lib/modules/VERSION with modules.dep.

# modules_in_order DIR NAME...: the module files to load, dependencies first; built-in ones are left out.
modules_in_order() {
    local base
    base=$(echo "$1"/lib/modules/*)
    shift
    [[ -f $base/modules.dep ]] || die "no modules.dep in $base"
    awk -v wanted="$*" -v builtin="$base/modules.builtin" '
        function name(path) { sub(/.*\//, "", path); sub(/\.ko.*/, "", path); gsub(/-/, "_", path); return path }
        { file = $1; sub(/:$/, "", file); path[name(file)] = file; deps[file] = $0; sub(/^[^:]*: ?/, "", deps[file]) }
        function load(file,   parts, n) {
            if (file in loaded) return
            loaded[file] = 1
            # modules.dep lists the nearest dependency first: load from the far end.
            for (n = split(deps[file], parts, " "); n > 0; n--) load(parts[n])
            print file
        }
        END {
            while ((getline line < builtin) > 0) have[name(line)] = 1
            count = split(wanted, names, " ")
            for (i = 1; i <= count; i++) {
                if (names[i] in path) load(path[names[i]])
                else if (!(names[i] in have)) print "testhost: no module " names[i] " in this kernel" > "/dev/stderr"
            }
        }' "$base/modules.dep"
}

# add_modules DIR DEST NAME...: uncompressed copies as DEST/modules/NN-name.ko, numbered in loading order.
add_modules() {
    local dir=$1 dest=$2/modules base file number=0 target
    base=$(echo "$dir"/lib/modules/*)
    shift 2
    mkdir -p "$dest"
    while read -r file; do
        number=$((number + 1))
        target=$dest/$(printf '%03d' "$number")-$(basename "${file%%.ko*}").ko
        case $file in
            *.xz) xz -dc "$base/$file" >"$target" ;;
            *.zst) zstd -qdc "$base/$file" >"$target" ;;
            *) cp "$base/$file" "$target" ;;
        esac
    done < <(modules_in_order "$dir" "$@")
}

# add_busybox DEST: busybox and the folders an /init needs.
add_busybox() {
    mkdir -p "$1"/{bin,dev,proc,sys,tmp,mnt}
    cp "$(command -v busybox)" "$1/bin/busybox"
    ln -sf busybox "$1/bin/sh"
}

# pack_initramfs ROOT OUT: the same tree gives the same bytes (fixed times, owners, order, inode numbers).
pack_initramfs() {
    find "$1" -exec touch -h -d @0 {} +
    (cd "$1" && find . -print0 | LC_ALL=C sort -z | cpio --null -o -H newc -R 0:0 --reproducible --quiet) | gzip -1n >"$2"
}
