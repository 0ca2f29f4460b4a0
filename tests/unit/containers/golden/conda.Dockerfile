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
    python3 -c 'import os, sys, sysconfig; place = sysconfig.get_path("purelib"); os.makedirs(place, exist_ok=True); file = open(os.path.join(place, "mllaunch-workspace.pth"), "wb"); file.write(b"".join(os.fsencode(line) + b"\n" for line in sys.argv[1:])); file.close()' /workspace /workspace/src
