# srup on a CPU. Build and use:
#   docker build -t srup .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/photos" srup upscale photo.jpg
# On an NVIDIA GPU:
#   docker build --build-arg TORCH_INDEX=https://pypi.org/simple -t srup-gpu .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/photos" srup-gpu upscale photo.jpg
FROM python:3.12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir torch torchvision --index-url "$TORCH_INDEX"
COPY . /src
RUN pip install --no-cache-dir "/src[openvino]" && rm -rf /src
# Any user may write to it: results then belong to the caller, not to root.
RUN mkdir -m 1777 /cache
ENV SRUP_HOME=/cache
VOLUME /cache
WORKDIR /photos
ENTRYPOINT ["srup"]
CMD ["--help"]
