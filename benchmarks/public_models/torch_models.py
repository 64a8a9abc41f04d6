"""Public PyTorch models, small, each with an example input."""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from .entries import Entries, imported, load, source

MODELS = Entries()
"""Each public model by name."""

Built = tuple[Any, Any]


# Speech and music


@MODELS(
    "Tacotron 2",
    "torchaudio",
    first="model.decoder.attention_dropout = 0.0",
    note="Its other dropouts are functions in its code. They stay active.",
    rate={"output": 0},
    only="decoder.decoder_rnn",
)
def torchaudio_tacotron2() -> Built:
    made = load("torchaudio.models.tacotron2").Tacotron2(
        n_mels=8,
        n_symbol=20,
        symbol_embedding_dim=16,
        encoder_embedding_dim=16,
        decoder_rnn_dim=24,
        attention_rnn_dim=24,
        attention_hidden_dim=8,
        attention_location_n_filter=4,
        prenet_dim=8,
        postnet_embedding_dim=8,
    )
    tokens, lengths = torch.randint(1, 20, (3, 7)), torch.tensor([7, 6, 5])
    return made, (tokens, lengths, torch.randn(3, 8, 9), torch.tensor([9, 8, 7]))


@MODELS("WaveRNN", "torchaudio")
def torchaudio_wavernn() -> Built:
    made = load("torchaudio.models.wavernn").WaveRNN(
        upsample_scales=[2, 2, 3],
        n_classes=8,
        hop_length=12,
        n_res_block=1,
        n_rnn=32,
        n_fc=16,
        kernel_size=5,
        n_freq=8,
        n_hidden=16,
        n_output=16,
    )
    return made, (torch.randn(2, 1, (10 - 5 + 1) * 12), torch.randn(2, 1, 8, 10))


@MODELS("DeepSpeech", "torchaudio")
def torchaudio_deepspeech() -> Built:
    made = load("torchaudio.models.deepspeech").DeepSpeech(n_feature=6, n_hidden=16, n_class=5)
    return made, torch.randn(2, 1, 9, 6)


@MODELS("Hybrid Demucs", "torchaudio")
def torchaudio_hdemucs() -> Built:
    made = load("torchaudio.models._hdemucs").HDemucs(
        ["drums", "voice"], channels=8, nfft=1024, depth=5
    )
    return made, torch.randn(1, 2, 12000)


@MODELS("Demucs", "demucs")
def demucs() -> Built:
    made = load("demucs.demucs").Demucs(
        ["drums", "voice"], channels=8, lstm_layers=2, dconv_lstm=4, depth=5
    )
    return made, torch.randn(1, 2, 20000)


@MODELS("Open-Unmix", "openunmix")
def openunmix() -> Built:
    made = load("openunmix.model").OpenUnmix(nb_bins=33, nb_channels=2, hidden_size=32)
    return made, torch.rand(4, 2, 33, 12)


@MODELS("PyanNet", "pyannote.audio")
def pyannet() -> Built:
    return _pyannet(monolithic=True), torch.randn(2, 1, 16000)


@MODELS("PyanNet, one layer each", "pyannote.audio")
def pyannet_split() -> Built:
    return _pyannet(monolithic=False), torch.randn(2, 1, 16000)


def _pyannet(monolithic: bool) -> Any:
    load("pyannote.audio.utils.params")
    reports = ModuleType("pyannote.audio.telemetry")  # of how often it is used, over the network
    reports.track_model_init = lambda _: None  # type: ignore[attr-defined]
    sys.modules["pyannote.audio.telemetry"] = reports
    sys.modules["pyannote.audio"].__version__ = version("pyannote.audio")  # type: ignore[attr-defined]
    kind = load("pyannote.audio.models.segmentation.PyanNet").PyanNet
    task = load("pyannote.audio.core.task")
    made = kind(
        lstm={"hidden_size": 32, "num_layers": 2, "dropout": 0.5, "monolithic": monolithic},
        linear={"hidden_size": 32, "num_layers": 2},
    )
    made.specifications = task.Specifications(
        problem=task.Problem.MULTI_LABEL_CLASSIFICATION,
        resolution=task.Resolution.FRAME,
        duration=1.0,
        classes=["a", "b"],
    )
    made.build()
    return made


@MODELS("CRDNN", "speechbrain")
def crdnn() -> Built:
    rnn = imported("speechbrain.nnet.RNN")
    made = imported("speechbrain.lobes.models.CRDNN").CRDNN(
        rnn_class=rnn.LSTM,
        input_shape=[4, 20, 16],
        cnn_blocks=1,
        cnn_channels=[8],
        rnn_layers=2,
        rnn_neurons=16,
        dnn_blocks=1,
        dnn_neurons=16,
    )
    return made, torch.randn(4, 20, 16)


@MODELS("CRDNN with projections", "speechbrain")
def crdnn_projected() -> Built:
    rnn = imported("speechbrain.nnet.RNN")
    made = imported("speechbrain.lobes.models.CRDNN").CRDNN(
        rnn_class=rnn.LSTM,
        input_shape=[4, 20, 16],
        cnn_blocks=0,
        rnn_layers=2,
        rnn_neurons=16,
        dnn_blocks=1,
        dnn_neurons=16,
        use_rnnp=True,
    )
    return made, torch.randn(4, 20, 16)


@MODELS("GRU encoder and attentional decoder", "speechbrain", rate={"output": 0})
def speechbrain_decoder() -> Built:
    rnn = imported("speechbrain.nnet.RNN")
    made = nn.ModuleDict(
        {
            "encoder": rnn.GRU(hidden_size=16, input_shape=[3, 9, 8], num_layers=2, dropout=0.2),
            "decoder": rnn.AttentionalRNNDecoder(
                "gru",
                attn_type="content",
                attn_dim=8,
                hidden_size=16,
                num_layers=2,
                enc_dim=16,
                input_size=8,
                dropout=0.2,
            ),
        }
    )
    x, y = torch.randn(3, 9, 8), torch.randn(3, 5, 8)

    def run() -> Any:
        encoded, _ = made["encoder"](x)
        return made["decoder"](y, encoded, torch.ones(3))

    return made, run


@MODELS(
    "Tacotron 2",
    "speechbrain",
    first="model.decoder.p_attention_dropout = 0.0",
    note="Its other dropouts are functions in its code. They stay active.",
    rate={"output": 0},
    only="decoder.decoder_rnn",
)
def speechbrain_tacotron2() -> Built:
    kind = imported("speechbrain.lobes.models.Tacotron2").Tacotron2
    made = kind(
        n_mel_channels=8,
        n_symbols=20,
        symbols_embedding_dim=16,
        encoder_embedding_dim=16,
        attention_rnn_dim=24,
        decoder_rnn_dim=24,
        prenet_dim=8,
        postnet_embedding_dim=8,
    )
    lengths = torch.tensor([7, 6, 5])
    batch = (
        torch.randint(1, 20, (3, 7)),
        lengths,
        torch.randn(3, 8, 9),
        9,
        torch.tensor([9, 8, 7]),
    )
    return made, lambda: made(batch)


@MODELS(
    "RNN encoder with projections",
    "espnet",
    note="Its code applies dropout to the input of the layers. It stays active.",
    rate={"input": 0},
)
def espnet_encoder() -> Built:
    made = load("espnet.nets.pytorch_backend.rnn.encoders").RNNP(
        8, 3, 16, 12, [1, 1, 1, 1, 1], 0.3, "blstm"
    )
    return made, (torch.randn(3, 9, 8), torch.tensor([9, 8, 7]))


@MODELS(
    "RNN decoder",
    "espnet",
    note="Its own dropout between the cells also feeds the attention. It stays active.",
    rate={"between": 0, "output": 0},
)
def espnet_decoder() -> Built:
    made = load("espnet2.asr.decoder.rnn_decoder").RNNDecoder(
        20, 12, num_layers=2, hidden_size=16, dropout=0.3, att_conf={"adim": 8, "aconv_chans": 2}
    )
    encoded, lengths = torch.randn(3, 9, 12), torch.tensor([9, 8, 7])
    return made, (encoded, lengths, torch.randint(20, (3, 5)), torch.tensor([5, 4, 3]))


@MODELS("RNN language model", "espnet")
def espnet_lm() -> Built:
    made = load("espnet2.lm.seq_rnn_lm").SequentialRNNLM(20, 16, nlayers=2, dropout_rate=0.3)
    return made, (torch.randint(20, (3, 9)), None)


@MODELS("TF-GridNet", "espnet")
def espnet_tfgridnet() -> Built:
    made = load("espnet2.enh.separator.tfgridnet_separator").TFGridNet(
        None,
        n_fft=32,
        stride=16,
        n_imics=1,
        n_layers=2,
        lstm_hidden_units=8,
        emb_dim=8,
        attn_n_head=2,
        attn_approx_qk_dim=32,
    )
    return made, (torch.randn(2, 400), torch.tensor([400, 400]))


@MODELS("SkiM", "espnet")
def espnet_skim() -> Built:
    made = load("espnet2.enh.layers.skim").SkiM(
        8, 16, 8, dropout=0.2, num_blocks=2, segment_size=5, bidirectional=True, mem_type="hc"
    )
    return made, torch.randn(2, 20, 8)


@MODELS("DPRNN", "espnet")
def espnet_dprnn() -> Built:
    made = load("espnet2.enh.layers.dprnn").DPRNN(
        "LSTM", 8, 16, 8, dropout=0.2, num_layers=2, bidirectional=True
    )
    return made, torch.randn(2, 8, 5, 6)


@MODELS("Voice encoder", "resemblyzer")
def resemblyzer() -> Built:
    load("resemblyzer.hparams")
    sys.modules.setdefault("resemblyzer.audio", ModuleType("resemblyzer.audio"))
    kind = load("resemblyzer.voice_encoder").VoiceEncoder
    return kind("cpu", verbose=False), torch.randn(2, 20, 40)


@MODELS(
    "Tacotron 2",
    "coqui-tts",
    first="model.decoder.p_attention_dropout = 0.0",
    note="Its other dropouts are functions in its code. They stay active.",
    rate={"output": 0},
    only="decoder.decoder_rnn",
)
def coqui_tacotron2() -> Built:
    made = load("TTS.tts.models.tacotron2").Tacotron2(
        load("TTS.tts.configs.tacotron2_config").Tacotron2Config(num_chars=20)
    )
    batch = (torch.randint(1, 20, (2, 7)), torch.tensor([7, 6]), torch.randn(2, 8, 80))
    return made, lambda: made(*batch, torch.tensor([8, 7]))


@MODELS(
    "Tacotron",
    "coqui-tts",
    note="Its other dropouts are functions in its code. They stay active.",
    rate={"output": 0},
    only=["decoder.decoder_rnns", "postnet"],
)
def coqui_tacotron() -> Built:
    made = load("TTS.tts.models.tacotron").Tacotron(
        load("TTS.tts.configs.tacotron_config").TacotronConfig(
            num_chars=20, out_channels=513, use_gst=False
        )
    )
    batch = (torch.randint(1, 20, (2, 7)), torch.tensor([7, 6]), torch.randn(2, 8, 80))
    return made, lambda: made(*batch, torch.tensor([8, 7]))


@MODELS("LSTM speaker encoder", "coqui-tts")
def coqui_speaker() -> Built:
    made = load("TTS.encoder.models.lstm").LSTMSpeakerEncoder(8, proj_dim=16, lstm_dim=24)
    return made, torch.randn(3, 8, 20)


@MODELS("EnCodec", "transformers")
def encodec() -> Built:
    config = imported("transformers.models.encodec.configuration_encodec").EncodecConfig(
        num_filters=4, hidden_size=16, codebook_size=16, codebook_dim=16, upsampling_ratios=[4, 2]
    )
    made = imported("transformers.models.encodec.modeling_encodec").EncodecModel(config)
    return made, torch.randn(2, 1, 320)


@MODELS("Parakeet RNN-T", "transformers")
def parakeet() -> Built:
    config = imported("transformers.models.parakeet.configuration_parakeet").ParakeetRNNTConfig(
        vocab_size=20, decoder_hidden_size=16, num_decoder_layers=2
    )
    made = imported("transformers.models.parakeet.modeling_parakeet").ParakeetRNNTDecoder(config)
    return made, torch.randint(20, (2, 7))


# Text


@MODELS("Character tokenizer", "stanza", first="model.dropout.p = 0.0")
def stanza_tokenizer() -> Built:
    args = {
        "feat_dim": 3,
        "rnn_layers": 1,
        "conv_res": None,
        "hierarchical": True,
        "hier_invtemp": 0.5,
        "tok_noise": 0.02,
        "use_mwt": False,
    }
    made = load("stanza.models.tokenization.model").Tokenizer(args, 20, 16, 16, 0.33, 0.05)
    return made, (torch.randint(20, (3, 9)), torch.randn(3, 9, 3), [9, 8, 7])


@MODELS(
    "Highway LSTM of the tagger",
    "stanza",
    note="Its own dropout between the layers also feeds the highway. It stays active.",
    rate={"between": 0},
)
def stanza_highway() -> Built:
    made = load("stanza.models.common.hlstm").HighwayLSTM(
        16,
        12,
        num_layers=2,
        batch_first=True,
        bidirectional=True,
        dropout=0.5,
        rec_dropout=0,
        highway_func=torch.tanh,
        pad=True,
    )
    return made, (torch.randn(3, 9, 16), [9, 8, 7])


@MODELS(
    "Highway LSTM with recurrent dropout",
    "stanza",
    note="Its own dropout between the layers also feeds the highway. It stays active.",
    rate={"between": 0, "output": 0},
)
def stanza_recurrent_dropout() -> Built:
    made = load("stanza.models.common.hlstm").HighwayLSTM(
        16,
        12,
        num_layers=2,
        batch_first=True,
        bidirectional=True,
        dropout=0.5,
        rec_dropout=0.3,
        highway_func=torch.tanh,
        pad=True,
    )
    return made, (torch.randn(3, 9, 16), [9, 8, 7])


class _Tagger(nn.Module):
    """The words' way through stanza's tagger: word dropout, dropout, LSTM, dropout, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.word_emb = nn.Embedding(20, 16)
        self.taggerlstm = load("stanza.models.common.hlstm").HighwayLSTM(
            16, 12, num_layers=2, batch_first=True, bidirectional=True, dropout=0.5, pad=True
        )
        self.drop_replacement = nn.Parameter(torch.randn(16))
        self.upos_hid = nn.Linear(24, 16)
        self.upos_clf = nn.Linear(16, 5)
        self.drop = nn.Dropout(0.5)
        self.worddrop = load("stanza.models.common.dropout").WordDropout(0.33)

    def forward(self, word: torch.Tensor, lengths: list[int]) -> Any:
        x = self.drop(self.worddrop(self.word_emb(word), self.drop_replacement))
        y, _ = self.taggerlstm(x, lengths)
        return self.upos_clf(self.drop(torch.relu(self.upos_hid(self.drop(y)))))


@MODELS(
    "Tagger",
    "stanza",
    first="model.drop.p = model.taggerlstm.drop.p = 0.0",
    note="Its word dropout stays active.",
    rate={"input": 0},
)
def stanza_tagger() -> Built:
    return _Tagger(), (torch.randint(20, (3, 9)), [9, 8, 7])


@MODELS("Lemmatizer", "stanza", rate={"output": 0})
def stanza_lemmatizer() -> Built:
    made = load("stanza.models.common.seq2seq_model").Seq2SeqModel(
        {
            "vocab_size": 20,
            "emb_dim": 16,
            "hidden_dim": 16,
            "num_layers": 2,
            "dropout": 0.5,
            "emb_dropout": 0.3,
            "max_dec_len": 9,
            "attn_type": "soft",
        }
    )
    mask = torch.zeros(3, 7, dtype=torch.bool)
    mask[1:, 5:] = True
    return made, (torch.randint(4, 20, (3, 7)), mask, torch.randint(4, 20, (3, 5)))


@MODELS(
    "Sequence tagger",
    "flair",
    note="Its own dropout is also used elsewhere. It stays active, also on the output.",
    rate={"output": 0},
)
def flair_tagger() -> Built:
    imported("transformers").LayoutLMv2FeatureExtractor = None  # which flair names, and no more is
    data = imported("flair.data")
    labels = data.Dictionary(add_unk=False)
    for label in ("N", "V", "O"):
        labels.add_item(label)
    flair = imported("flair")
    flair.device = torch.device("cpu")
    words = imported("flair.embeddings").OneHotEmbeddings
    vocabulary = data.Dictionary()
    for word in ("the", "cat", "sat", "on", "a", "mat"):
        vocabulary.add_item(word)
    made = imported("flair.models").SequenceTagger(
        words(vocabulary, embedding_length=16),
        labels,
        "pos",
        hidden_size=16,
        rnn_layers=2,
        use_crf=False,
        dropout=0.2,
        word_dropout=0.05,
        locked_dropout=0.5,
    )
    sentence = data.Sentence("the cat sat on a mat")

    def run() -> Any:
        tensors = made._prepare_tensors([sentence])
        return made.forward(*tensors)

    return made, run


@MODELS(
    "RNN encoder, input-feeding decoder",
    "OpenNMT-py",
    note="The dropout of its input feed stays active.",
    rate={"input": 0, "output": 0},
)
def opennmt() -> Built:
    return _opennmt(input_feed=True)


@MODELS("RNN encoder, standard decoder", "OpenNMT-py")
def opennmt_standard() -> Built:
    return _opennmt(input_feed=False)


def _opennmt(input_feed: bool) -> Built:
    modules = load("onmt.modules.embeddings")
    sys.modules["onmt.modules"].context_gate_factory = None  # type: ignore[attr-defined]
    sys.modules["onmt.modules"].GlobalAttention = load(  # type: ignore[attr-defined]
        "onmt.modules.global_attention"
    ).GlobalAttention

    def words() -> Any:
        return modules.Embeddings(16, 20, 0, dropout=0.3)

    encoder = load("onmt.encoders.rnn_encoder").RNNEncoder("LSTM", True, 2, 16, 0.3, words())
    decoders = load("onmt.decoders.decoder")
    kind = decoders.InputFeedRNNDecoder if input_feed else decoders.StdRNNDecoder
    decoder = kind("LSTM", True, 2, 16, dropout=0.3, embeddings=words())
    made = load("onmt.models.model").NMTModel(encoder, decoder)
    for parameter in made.parameters():  # as its trainer does; the embeddings' are memory as it was
        nn.init.uniform_(parameter, -0.1, 0.1)
    source = torch.randint(1, 20, (3, 7, 1))
    return made, (source, torch.randint(1, 20, (3, 6, 1)), torch.tensor([7, 6, 5]))


@MODELS(
    "LSTM encoder and decoder",
    "fairseq",
    first='model["decoder"].dropout_out_module.p = 0.0',
    rate={"output": 0},
)
def fairseq_lstm() -> Built:
    return _fairseq(bidirectional=True, residuals=False)


def _fairseq(bidirectional: bool, residuals: bool) -> Built:
    names = ("FairseqEncoder", "FairseqIncrementalDecoder", "FairseqEncoderDecoderModel")
    models = ModuleType("fairseq.models")

    class Base(nn.Module):
        def __init__(self, dictionary: Any = None) -> None:
            super().__init__()
            self.dictionary = dictionary

        def set_incremental_state(self, *_: Any) -> None: ...

    for name in names:
        setattr(models, name, Base)
    models.register_model = models.register_model_architecture = lambda *_: lambda kind: kind  # type: ignore[attr-defined]
    fairseq = ModuleType("fairseq")
    folder = next(p for p in sys.path if (Path(p) / "fairseq").is_dir())
    fairseq.__path__ = [str(Path(folder) / "fairseq")]
    models.__path__ = [str(Path(folder) / "fairseq" / "models")]
    sys.modules["fairseq"] = fairseq
    sys.modules["fairseq.models"] = models
    utils = ModuleType("fairseq.utils")
    utils.convert_padding_direction = lambda tokens, *_, **__: tokens  # type: ignore[attr-defined]
    fairseq.utils = utils  # type: ignore[attr-defined]
    sys.modules["fairseq.utils"] = utils
    modules = ModuleType("fairseq.modules")
    modules.__path__ = [str(Path(folder) / "fairseq" / "modules")]
    sys.modules["fairseq.modules"] = modules
    modules.FairseqDropout = load("fairseq.modules.fairseq_dropout").FairseqDropout  # type: ignore[attr-defined]
    modules.AdaptiveSoftmax = None  # type: ignore[attr-defined]
    lstm = load("fairseq.models.lstm")

    class Words(list):  # type: ignore[type-arg]
        def pad(self) -> int:
            return 1

    words = Words(range(20))
    encoder = lstm.LSTMEncoder(words, 16, 12, 2, 0.2, 0.2, bidirectional, left_pad=False)
    decoder = lstm.LSTMDecoder(
        words, 16, 24, 24, 2, 0.2, 0.2, encoder_output_units=24, residuals=residuals
    )
    made = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    tokens, lengths, before = (
        torch.randint(2, 20, (3, 7)),
        torch.tensor([7, 7, 7]),
        torch.randint(2, 20, (3, 5)),
    )
    return made, lambda: decoder(before, encoder(tokens, lengths))


@MODELS("AWD-LSTM", "fastai")
def fastai_awd() -> Built:
    made = imported("fastai.text.models.awdlstm").AWD_LSTM(20, 16, 24, 2)
    return made, torch.randint(20, (3, 7))


@MODELS("Word language model", "pytorch/examples")
def word_language_model() -> Built:
    made = source("pytorch/examples/word_language_model/model.py")["RNNModel"](
        "LSTM", 20, 16, 16, 2, 0.5
    )
    return made, (torch.randint(20, (7, 3)), made.init_hidden(3))


@MODELS("SNLI classifier", "pytorch/examples")
def snli() -> Built:
    config = Namespace(
        n_embed=20,
        d_embed=16,
        d_proj=16,
        d_hidden=12,
        n_layers=2,
        n_cells=4,
        birnn=True,
        dp_ratio=0.2,
        projection=True,
        fix_emb=False,
        d_out=3,
    )
    made = source("pytorch/examples/legacy/snli/model.py")["SNLIClassifier"](config)
    batch = SimpleNamespace(premise=torch.randint(20, (7, 3)), hypothesis=torch.randint(20, (5, 3)))
    return made, lambda: made(batch)


@MODELS("Sine waves", "pytorch/examples", rate={"output": 0})
def sine_waves() -> Built:
    made = source("pytorch/examples/time_sequence_prediction/train.py")["Sequence"]().double()
    return made, torch.randn(3, 9, dtype=torch.double)


@MODELS("MNIST by rows", "pytorch/examples")
def mnist_rnn() -> Built:
    return source("pytorch/examples/mnist_rnn/main.py")["Net"](), torch.randn(3, 1, 28, 28)


@MODELS("LSTM language model demo", "lightning")
def lightning_lm() -> Built:
    made = imported("lightning.pytorch.demos.lstm").SimpleLSTM(20, 16, 16, 2)
    return made, (torch.randint(20, (3, 7)), made.init_hidden(3))


# Pictures of text


@MODELS("CRNN", "python-doctr")
def doctr_crnn() -> Built:
    made = imported("doctr.models.recognition.crnn.pytorch").crnn_mobilenet_v3_small(
        pretrained=False, pretrained_backbone=False
    )
    images = torch.rand(2, 3, 32, 128)
    return made, lambda: made(images, ["ab", "cd"], return_model_output=True)


@MODELS("SAR", "python-doctr", rate={"output": 0}, stacks=[["decoder.lstm_cell"]])
def doctr_sar() -> Built:
    kind = imported("doctr.models.recognition.sar.pytorch")
    made = kind.sar_resnet31(pretrained=False, pretrained_backbone=False)
    images = torch.rand(2, 3, 32, 128)
    return made, lambda: made(images, ["ab", "cd"], return_model_output=True)


@MODELS("CRNN", "easyocr")
def easyocr() -> Built:
    made = load("easyocr.model.model").Model(1, 16, 16, 10)
    return made, (torch.randn(2, 1, 32, 64), None)


# Series


@MODELS("LSTM", "neuralforecast")
def nf_lstm() -> Built:
    made = _neuralforecast("LSTM", encoder_hidden_size=16, encoder_dropout=0.2)
    return made, _window()


@MODELS("GRU, recurrent", "neuralforecast")
def nf_gru() -> Built:
    made = _neuralforecast("GRU", encoder_hidden_size=16, recurrent=True)
    return made, _window()


@MODELS("Dilated RNN", "neuralforecast")
def nf_dilated() -> Built:
    made = _neuralforecast("DilatedRNN", encoder_hidden_size=16, dilations=[[1, 2], [4, 8]])
    return made, _window()


@MODELS("DeepAR", "neuralforecast")
def nf_deepar() -> Built:
    made = _neuralforecast("DeepAR", lstm_hidden_size=16, lstm_dropout=0.1)
    return made, _window()


@MODELS("Temporal Fusion Transformer", "neuralforecast")
def nf_tft() -> Built:
    lists = {"futr_exog_list": ["a"], "hist_exog_list": ["b"], "stat_exog_list": ["c"]}
    batch = _window()["windows_batch"] | {
        "futr_exog": torch.randn(4, 20, 1),
        "hist_exog": torch.randn(4, 16, 1),
        "stat_exog": torch.randn(4, 1),
    }
    return _neuralforecast("TFT", hidden_size=16, **lists), {"windows_batch": batch}


@MODELS("StemGNN", "neuralforecast")
def nf_stemgnn() -> Built:
    made = _neuralforecast("StemGNN", n_series=3)
    return made, lambda: made({**_window(), "insample_y": torch.randn(4, 16, 3)})


def _neuralforecast(kind: str, **options: Any) -> Any:
    return getattr(imported("neuralforecast.models"), kind)(h=4, input_size=16, **options)


def _window() -> dict[str, Any]:
    return {
        "windows_batch": {
            "insample_y": torch.randn(4, 16, 1),
            "insample_mask": torch.ones(4, 16, 1),
            "futr_exog": torch.zeros(4, 20, 0),
            "hist_exog": torch.zeros(4, 16, 0),
            "stat_exog": torch.zeros(4, 0),
        }
    }


@MODELS("RNN", "darts")
def darts_rnn() -> Built:
    module = imported("darts.models.forecasting.rnn_model")
    made = module._RNNModule(
        "LSTM",
        input_size=1,
        hidden_dim=16,
        num_layers=2,
        target_size=1,
        nr_params=1,
        dropout=0.2,
        input_chunk_length=9,
        output_chunk_length=1,
        train_sample_shape=None,
    )
    data = imported("darts.utils.data.torch_datasets.utils")
    batch = data.PLModuleInput(torch.randn(3, 9, 1), stage=data.ModuleStage.TRAIN)
    return made, lambda: made(batch)


@MODELS("DeepAR", "gluonts")
def gluonts_deepar() -> Built:
    made = imported("gluonts.torch.model.deepar.module").DeepARModel(
        "D", 6, 4, lags_seq=[1, 2], hidden_size=16, num_layers=2, num_parallel_samples=2
    )
    size = made._past_length
    batch = {
        "feat_static_cat": torch.zeros(3, 1, dtype=torch.long),
        "feat_static_real": torch.randn(3, 1),
        "past_time_feat": torch.randn(3, size, 1),
        "past_target": torch.randn(3, size),
        "past_observed_values": torch.ones(3, size),
        "future_time_feat": torch.randn(3, 4, 1),
    }
    future = torch.randn(3, 4)

    def run() -> Any:
        return made.unroll_lagged_rnn(**batch, future_target=future)[0]

    return made, run


@MODELS("Temporal Fusion Transformer", "gluonts")
def gluonts_tft() -> Built:
    made = imported("gluonts.torch.model.tft.module").TemporalFusionTransformerModel(
        context_length=6, prediction_length=4, d_var=8, d_hidden=16, num_heads=2
    )
    inputs = {
        name: torch.ones(spec.shape, dtype=spec.dtype)
        if name == "past_observed_values"
        else torch.rand(spec.shape).to(spec.dtype)
        for name, spec in made.describe_inputs(3).items()
    }
    return made, inputs


@MODELS("LSTM with packed input", "pytorch-forecasting")
def pytorch_forecasting_rnn() -> Built:
    kind = imported("pytorch_forecasting.models.nn.rnn").LSTM
    made = nn.ModuleDict({"rnn": kind(8, 16, 2, batch_first=True, dropout=0.1)})
    x, lengths = torch.randn(3, 9, 8), torch.tensor([9, 0, 5])
    return made, lambda: made["rnn"](x, lengths=lengths, enforce_sorted=False)


@MODELS("Recurrent actor and critic", "sb3-contrib")
def sb3() -> Built:
    import numpy as np

    spaces = imported("gymnasium").spaces
    kind = imported("sb3_contrib.common.recurrent.policies").RecurrentActorCriticPolicy
    made = kind(
        spaces.Box(-1, 1, (6,), np.float32),
        spaces.Discrete(3),
        lambda _: 1e-3,
        lstm_hidden_size=16,
        n_lstm_layers=1,
    )
    states = imported("sb3_contrib.common.recurrent.type_aliases").RNNStates
    zeros = (torch.zeros(1, 2, 16), torch.zeros(1, 2, 16))
    observations, starts = torch.randn(10, 6), torch.zeros(10)
    starts[3] = 1
    return made, lambda: made.evaluate_actions(
        observations, torch.zeros(10), states(zeros, zeros), starts
    )


@MODELS("PPO agent with an LSTM", "vwxyzjn/cleanrl")
def cleanrl() -> Built:
    games = ModuleType("cleanrl_utils.atari_wrappers")  # which the agent does not need
    for name in ("ClipReward", "EpisodicLife", "FireReset", "MaxAndSkip", "NoopReset"):
        setattr(games, f"{name}Env", None)
    sys.modules |= {"cleanrl_utils": ModuleType("cleanrl_utils"), games.__name__: games}
    made = source("vwxyzjn/cleanrl/cleanrl/ppo_atari_lstm.py")["Agent"](
        SimpleNamespace(single_action_space=SimpleNamespace(n=4))
    )
    frames, state = torch.rand(6, 1, 84, 84), (torch.zeros(1, 2, 128), torch.zeros(1, 2, 128))
    done = torch.zeros(6)
    done[3] = 1
    return made, lambda: made.get_action_and_value(frames, state, done)


@MODELS("LSTM", "tsai")
def tsai_lstm() -> Built:
    made = imported("tsai.models.RNN").LSTM(4, 3, 16, 2, rnn_dropout=0.2, fc_dropout=0.3)
    return made, torch.randn(3, 4, 9)


@MODELS("LSTM-FCN", "tsai")
def tsai_lstm_fcn() -> Built:
    made = imported("tsai.models.RNN_FCN").LSTM_FCN(4, 3, 9, hidden_size=16)
    return made, torch.randn(3, 4, 9)


@MODELS("Multiscale GRU-FCN+", "tsai")
def tsai_gru_plus() -> Built:
    made = imported("tsai.models.RNNPlus").GRUPlus(
        4, 3, 9, hidden_size=[16, 12], n_layers=1, rnn_dropout=0.2, fc_dropout=0.3
    )
    return made, torch.randn(3, 4, 9)
