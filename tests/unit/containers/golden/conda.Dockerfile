# made by mllaunch: what the code runs in; the build context is the folder dependencies beside this file
FROM --platform=linux/amd64 mambaorg/micromamba:2
USER root
COPY ["dependencies/", "/.mllaunch/dependencies/"]
RUN cd / && \
    { tool=$(command -v micromamba || command -v mamba || command -v conda) || { echo 'mllaunch: the base image has none of micromamba, mamba and conda, which install an environment.yml' >&2; exit 1; }; } && \
    case "$tool" in *micromamba) "$tool" install -y -n base -f /.mllaunch/dependencies/environment.yml ;; *) "$tool" env update -n base -f /.mllaunch/dependencies/environment.yml ;; esac && \
    "$tool" clean -a -y && \
    export PATH="${MAMBA_ROOT_PREFIX:+$MAMBA_ROOT_PREFIX/bin:}$PATH" && \
    python3 -m pip freeze > /.mllaunch/requirements.lock && \
    python3 -c 'import os, sys, sysconfig; place = sysconfig.get_path("purelib"); os.makedirs(place, exist_ok=True); file = open(os.path.join(place, "mllaunch-workspace.pth"), "wb"); file.write(b"".join(os.fsencode(line) + b"\n" for line in sys.argv[1:])); file.close()' /workspace /workspace/src && \
    python3 -c 'import os, sys, sysconfig; place = sysconfig.get_path("purelib"); os.makedirs(place, exist_ok=True); pairs = zip(sys.argv[1::2], sys.argv[2::2]); write = lambda name, text: open(os.path.join(place, name), "w").write(text.replace(";;", chr(10))); [write(*pair) for pair in pairs]' mllaunch_begin.py 'def begin():;;    try:;;        import os, sys;;        hook = '"'"'/.mllaunch/hook'"'"';;        if os.path.isdir(hook) and sys.version_info >= (3, 8):;;            sys.path.insert(0, hook);;            try:;;                import mllaunch_hook;;            finally:;;                sys.path.remove(hook);;            mllaunch_hook.install();;    except Exception:;;        pass;;' mllaunch-begin.pth 'import mllaunch_begin; mllaunch_begin.begin();;' mllaunch-begin.start 'mllaunch_begin:begin;;'
