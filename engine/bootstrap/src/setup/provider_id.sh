# Only what is whole and cannot be anything else than an id is written.
set_provider_id() {
    id=$(provider_id) || return 1
    case "$id" in
    *[!A-Za-z0-9:/._-]* | *://*//* | */) return 1 ;;
    *://?*) ;;
    *) return 1 ;;
    esac
    sed -i "s|^\( *value: \)$provider_id_placeholder\$|\1$id|" "$kubeadm_config"
}

attempt 10 set_provider_id || fail "the instance does not learn its id at the provider"
