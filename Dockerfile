# The course in a container:
#
#     docker build -t agentlab .
#     docker run --rm -p 8888:8888 agentlab
#
# JupyterLab then prints an address that begins with http://127.0.0.1:8888. What a learner saves
# goes with the container, unless notebooks/ is mounted: -v "$PWD/notebooks:/course/notebooks".
FROM python:3.12-slim

RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

# JupyterLab refuses to run as root, and a learner's files should not be root's.
RUN useradd --create-home learner && mkdir /course && chown learner /course
USER learner
WORKDIR /course

# First what the environment depends on, so that a change in a lesson installs nothing again.
COPY --chown=learner requirements.lock pyproject.toml Makefile README.md LICENSE ./
COPY --chown=learner tools tools
COPY --chown=learner agentlab agentlab
COPY --chown=learner data data
RUN make setup
COPY --chown=learner . .

EXPOSE 8888
CMD ["make", "lab", "LAB_ARGS=--ip=0.0.0.0 --port=8888 --no-browser"]
