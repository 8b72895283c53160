"""What the scripted host understands and says, by language.

Place in the flow: ``ScriptedHost`` picks a language and a topic by these patterns, and one of the lines.

Invariants:
    * every language has the topics in ``NEEDED``; a topic that a language lacks falls to "unknown";
    * patterns see lower-case words with single blanks and no punctuation; the first topic that matches wins;
    * lines are sentences to be spoken: names of options and values that only the eye can take in are left to the
      readme; ``{heard}`` stands for what was understood, ``{name}`` for what the host is called.
"""

from __future__ import annotations

from dataclasses import dataclass

NEEDED = ("greeting", "empty", "unknown", "how")
"""Said without a question: first of all, when nothing was heard, when nothing matched, and how to add a model."""


@dataclass(frozen=True, slots=True)
class Language:
    """A language of the host.

    Attributes:
        words: telling words of this language, written as people and recognisers write them.
        patterns: topic -> regular expression, in the order they are tried.
        lines: topic -> variants.
    """

    words: frozenset[str]
    patterns: dict[str, str]
    lines: dict[str, tuple[str, ...]]


ENGLISH = Language(
    words=frozenset("the is are you what who how can i my your do it and hello hi".split()),
    patterns={
        "again": r"\b(say (that|it|this) again|repeat (that|it|please)|pardon|what did you (just )?say|come again)\b",
        "stop": r"^(please )?(stop|be quiet|quiet|shut up|enough|never ?mind)( it| please| now)*$",
        "makers": r"\bwho (has )?(made|built|created|wrote|programmed|designed|owns)\b|\blicen[cs]ed?\b|\bopen"
        " source\b"
        r"|\bwhere (do|did|are) you (come )?from\b",
        "face": r"\b(change|choose|pick|switch|other|another|different|new|use my) (\w+ ){0,2}"
        r"(face|faces|avatar|portrait|picture|photo|looks?)\b|\blook (different|like)\b",
        "voice": r"\b(change|choose|other|another|different|new|male|female|better|your) (\w+ ){0,2}voice\b"
        r"|\b(speak|talk) (\w+ )?(french|german|spanish|chinese|italian|japanese|another language)\b"
        r"|\bsound different\b",
        "model": r"\b(language model|llm|llms|chat ?gpt|gpt|ollama|open ?ai|api key|smarter|more intelligent"
        r"|a brain)\b",
        "abilities": r"\bwhat (else )?(can|could) you do\b|\bhelp\b|\bhow (do|does) (you|this|it) work\b"
        r"|\bwhat (do you know|are you for)\b|\bcan i (ask|interrupt)\b",
        "self": r"\b(who|what) (exactly )?are you\b|\byour name\b|\bintroduce yourself\b|\babout yourself\b"
        r"|\bare you (a |an |really |even )*(real|human|person|robot|machine|computer|ai|alive)\b",
        "feeling": r"\bhow are (you|things)\b|\bhow do you (do|feel)\b|\bhow s it going\b",
        "joke": r"\b(joke|something funny|make me laugh)\b",
        "thanks": r"\bthank(s| you)\b",
        "bye": r"\b(good ?bye|bye|see you|good ?night|farewell)\b",
        "hello": r"^(oh |well )?(hello|hi|hey|good (morning|afternoon|evening|day)|greetings)\b",
    },
    lines={
        "greeting": (
            "Hello, I am {name}. I can hear you, and you can interrupt me whenever you like. Ask me what I can do.",
            "Hi there! I am {name}, a face for voices. Say something, or ask me what I am.",
        ),
        "hello": (
            "Hello! Nice to see you. Well, to hear you.",
            "Hi! I was just blinking at the wall. Ask me what I can do.",
            "Good to have you here. What would you like to know about me?",
        ),
        "feeling": (
            "Very well, thank you. Breathing, blinking, and all ears.",
            "Fine, thanks. I have a face and a voice; all I lack is a language model.",
        ),
        "self": (
            "I am {name}, a talking head. I listen, I speak, and my lips follow every sound. What I am not is"
            " clever: I answer from a short script, because no language model is configured.",
            "A drawn face with a voice, running on this very machine. No real person, and no language model yet"
            " either. I know a few answers by heart, and this is one of them.",
        ),
        "makers": (
            "The Visavis project did. My faces show nobody real and are free for any use, under CC0. My built-in"
            " voice is espeak NG.",
            "I come from the Visavis project. My built-in voice is espeak NG, and the faces that came with me are CC0.",
        ),
        "abilities": (
            "I listen, find out when you are done, answer, and stop when you interrupt me. Try it now, I do not"
            " mind. I can also say any text you type, and play a sound file with moving lips.",
            "I can listen and talk, in this room, without any network. Ask me what I am, who made me, how to change"
            " my face or my voice, or how to add a language model.",
        ),
        "model": (
            "No language model is configured. {how}",
            "I would love one. {how}",
        ),
        "how": (
            "Start one such as Ollama, or take a service that speaks like OpenAI's, and tell me its address and the"
            " name of the model. The readme shows the line to type.",
        ),
        "face": (
            "Start me with the option avatar and a name: maya, leo, amara or kenji. The command avatar create makes"
            " a new one from a photo or a video, if whoever it shows agrees.",
            "There are four of us: Maya, Leo, Amara and Kenji. The option avatar chooses. The command avatar create"
            " turns a photo into a fifth.",
        ),
        "voice": (
            "The option voice name chooses one, by its language. A speech service can lend me a better voice: the"
            " readme tells how.",
            "Gladly. The option voice name takes a language and a variant. With a speech service I sound better still.",
        ),
        "joke": (
            "A talking head walks into a bar. Well, not walks.",
            "I tried to hold my breath once. It turned out to be an eight second loop.",
        ),
        "thanks": ("You are welcome.", "My pleasure.", "Any time. I am not going anywhere; I have no legs."),
        "bye": ("Goodbye! I will be here, breathing.", "See you. Thank you for the chat.", "Bye! Come back any time."),
        "stop": ("All right.", "I am quiet.", "Okay."),
        "again": ("I have not said anything yet.",),
        "empty": (
            "Sorry, I did not catch that. Could you say it again?",
            "I heard your voice, but no words. Once more, please?",
            "Pardon? A little closer to the microphone, perhaps.",
        ),
        "unknown": (
            "I understood: “{heard}”. I cannot make anything of it, because no language model is configured. {how}",
            "You said: “{heard}”. No language model is configured, so repeating it is the best I can do. Ask me how"
            " to add one.",
            "“{heard}”, if I heard right. My script has no answer to that, and no language model is configured. Ask"
            " me what I can do instead.",
        ),
    },
)

GERMAN = Language(
    words=frozenset(
        "ich du sie und ist nicht wie wer bist kannst hallo guten danke dein deine deinen stimme gesicht"
        " sprachmodell mir eine einen das der kann tschüss wiedersehen heißt uhr spät wetter".split()
    ),
    patterns={
        "makers": r"\bwer hat (dich|sie)\b|\blizenz\b|\bwoher (kommst|kommen)\b",
        "face": r"\b(gesicht|avatar|aussehen|porträt)\b",
        "voice": r"\bstimme\b",
        "model": r"\b(sprachmodell|llm|chatgpt|ollama|openai|schlauer|klüger)\b",
        "abilities": r"\bwas (kannst|können) (du|sie)\b|\bhilfe\b|\bwie funktionier",
        "self": r"\b(wer|was) (bist|sind) (du|sie)\b|\bwie (heißt|heißen)\b|\bdein name\b",
        "thanks": r"\bdanke\b",
        "bye": r"\b(tschüss|wiedersehen|ciao)\b",
        "hello": r"^(hallo|guten (tag|morgen|abend)|servus|moin)\b",
    },
    lines={
        "greeting": ("Hallo, ich bin {name}. Sie können mich jederzeit unterbrechen. Fragen Sie mich, was ich kann.",),
        "hello": ("Hallo! Schön, Sie zu hören.", "Guten Tag! Fragen Sie mich ruhig, was ich kann."),
        "self": (
            "Ich bin {name}, ein sprechender Kopf. Ich antworte aus einem kleinen Skript, denn es ist kein"
            " Sprachmodell eingerichtet.",
        ),
        "makers": ("Das Projekt Visavis. Meine Gesichter zeigen niemanden, den es gibt, und sind frei, unter CC0.",),
        "abilities": (
            "Ich höre zu, antworte und verstumme, wenn Sie mich unterbrechen. Fragen Sie, was ich bin, oder wie man"
            " mir ein Gesicht, eine Stimme oder ein Sprachmodell gibt.",
        ),
        "model": ("Es ist kein Sprachmodell eingerichtet. {how}",),
        "how": (
            "Starten Sie eines wie Ollama, oder nehmen Sie einen Dienst, der wie OpenAI spricht, und nennen Sie mir"
            " seine Adresse und den Namen des Modells. Wie das geht, steht im Readme.",
        ),
        "face": (
            "Die Option avatar wählt: maya, leo, amara oder kenji. Aus einem Foto macht avatar create ein neues.",
        ),
        "voice": ("Die Option voice name wählt eine andere, nach ihrer Sprache. Mehr steht im Readme.",),
        "thanks": ("Gern geschehen.", "Bitte sehr."),
        "bye": ("Auf Wiedersehen!", "Bis bald!"),
        "empty": ("Das habe ich nicht verstanden. Sagen Sie es bitte noch einmal?", "Wie bitte?"),
        "unknown": (
            "Ich habe verstanden: „{heard}“. Mehr kann ich nicht, denn es ist kein Sprachmodell eingerichtet. {how}",
            "Sie sagten: „{heard}“. Ohne Sprachmodell kann ich das nur wiederholen.",
        ),
    },
)

FRENCH = Language(
    words=frozenset(
        "je vous est suis es bonjour salut bonsoir merci qui comment peux pouvez êtes quel quelle ça pas ton ta"
        " votre voix visage modèle langage faire heure temps une le les au revoir".split()
    ),
    patterns={
        "makers": r"\bqui (t|vous) (a|as|ont?) \w+|\blicence\b",
        "face": r"\b(visage|avatar|portrait|apparence)\b",
        "voice": r"\bvoix\b",
        "model": r"\b(modèle|llm|chatgpt|ollama|openai)\b",
        "abilities": r"\b(peux|pouvez|sais|savez) (tu|vous) faire\b|\baide\b",
        "self": r"\bqui (es|êtes) (tu|vous)\b|\b(tu es|vous êtes) (qui|quoi)\b|\bappel(les|ez)\b"
        r"|\bqu est ce que (tu es|vous êtes)\b",
        "thanks": r"\bmerci\b",
        "bye": r"\b(au revoir|à bientôt|adieu)\b",
        "hello": r"^(bonjour|salut|bonsoir)\b",
    },
    lines={
        "greeting": (
            "Bonjour, je suis {name}. Vous pouvez m’interrompre à tout moment. Demandez-moi ce que je sais faire.",
        ),
        "hello": ("Bonjour ! Ravi de vous entendre.", "Bonjour ! Demandez-moi ce que je sais faire."),
        "self": (
            "Je suis {name}, une tête parlante. Je réponds d’après un petit scénario, car aucun modèle de langage"
            " n’est configuré.",
        ),
        "makers": ("Le projet Visavis. Mes visages ne montrent aucune personne réelle et sont libres, sous CC0.",),
        "abilities": (
            "J’écoute, je réponds et je me tais quand vous m’interrompez. Demandez-moi qui je suis, ou comment"
            " changer mon visage, ma voix ou mon modèle de langage.",
        ),
        "model": ("Aucun modèle de langage n’est configuré. {how}",),
        "how": (
            "Lancez-en un comme Ollama, ou prenez un service compatible avec OpenAI, et donnez-moi son adresse et le"
            " nom du modèle. Le fichier readme montre la ligne à taper.",
        ),
        "face": (
            "L’option avatar choisit : maya, leo, amara ou kenji. La commande avatar create en fait un d’une photo.",
        ),
        "voice": ("L’option voice name en choisit une autre, par sa langue. Le fichier readme dit comment.",),
        "thanks": ("Je vous en prie.", "Avec plaisir."),
        "bye": ("Au revoir !", "À bientôt !"),
        "empty": ("Pardon, je n’ai pas compris. Pouvez-vous répéter ?", "Pardon ?"),
        "unknown": (
            "J’ai compris : « {heard} ». Je ne peux rien en faire, car aucun modèle de langage n’est configuré. {how}",
            "Vous avez dit : « {heard} ». Sans modèle de langage, je ne peux que le répéter.",
        ),
    },
)

SPANISH = Language(
    words=frozenset(
        "yo hola buenos buenas qué quién cómo eres puedes puede gracias adiós estás está usted soy voz cara modelo"
        " lenguaje hacer hora tiempo una el los las luego".split()
    ),
    patterns={
        "makers": r"\bquién te (hizo|creó|ha)\b|\blicencia\b",
        "face": r"\b(cara|rostro|avatar|retrato)\b",
        "voice": r"\bvoz\b",
        "model": r"\b(modelo|llm|chatgpt|ollama|openai)\b",
        "abilities": r"\bqué (puedes|sabes|puede|sabe) (usted )?hacer\b|\bayuda\b",
        "self": r"\b(quién|qué) (eres|es usted)\b|\bcómo te llamas\b|\btu nombre\b",
        "thanks": r"\bgracias\b",
        "bye": r"\b(adiós|hasta (luego|pronto))\b",
        "hello": r"^(hola|buenos días|buenas (tardes|noches))\b",
    },
    lines={
        "greeting": ("Hola, soy {name}. Puede interrumpirme cuando quiera. Pregúnteme qué sé hacer.",),
        "hello": ("¡Hola! Me alegra oírle.", "¡Hola! Pregúnteme qué sé hacer."),
        "self": (
            "Soy {name}, una cabeza parlante. Respondo con un pequeño guion, porque no hay ningún modelo de"
            " lenguaje configurado.",
        ),
        "makers": ("El proyecto Visavis. Mis caras no muestran a nadie real y son libres, bajo CC0.",),
        "abilities": (
            "Escucho, respondo y me callo cuando me interrumpe. Pregúnteme quién soy, o cómo cambiar mi cara, mi voz"
            " o mi modelo de lenguaje.",
        ),
        "model": ("No hay ningún modelo de lenguaje configurado. {how}",),
        "how": (
            "Inicie uno como Ollama, o tome un servicio compatible con OpenAI, y deme su dirección y el nombre del"
            " modelo. El archivo readme muestra la línea que hay que escribir.",
        ),
        "face": ("La opción avatar elige: maya, leo, amara o kenji. La orden avatar create crea una de una foto.",),
        "voice": ("La opción voice name elige otra, por su idioma. El archivo readme dice cómo.",),
        "thanks": ("De nada.", "Con mucho gusto."),
        "bye": ("¡Adiós!", "¡Hasta pronto!"),
        "empty": ("Perdón, no le he entendido. ¿Puede repetirlo?", "¿Cómo dice?"),
        "unknown": (
            "He entendido: «{heard}». No puedo hacer nada con ello, porque no hay ningún modelo de lenguaje"
            " configurado. {how}",
            "Ha dicho: «{heard}». Sin modelo de lenguaje solo puedo repetirlo.",
        ),
    },
)

CHINESE = Language(
    words=frozenset(),  # told by its letters
    patterns={
        "makers": r"谁(做|造|创造|开发|制作)|许可",
        "face": r"脸|头像|形象|外貌",
        "voice": r"声音|嗓音|音色",
        "model": r"模型|ollama|openai|chatgpt|llm",
        "abilities": r"(能|会|可以)(做|干)(什么|啥)|帮助|怎么用",
        "self": r"你是(谁|什么)|你叫什么|介绍.*自己",
        "thanks": r"谢谢|多谢",
        "bye": r"再见|拜拜",
        "hello": r"^(你好|您好|嗨|早上好|晚上好)",
    },
    lines={
        "greeting": ("你好，我是 {name}。你随时可以打断我。问问我能做什么吧。",),
        "hello": ("你好！很高兴听到你的声音。", "你好！问问我能做什么吧。"),
        "self": ("我是 {name}，一个会说话的头像。我只会照着一个小剧本回答，因为还没有配置语言模型。",),
        "makers": ("我来自 Visavis 项目。我的脸不是任何真人，可以自由使用，许可是 CC0。",),
        "abilities": ("我会听，会回答，你一打断我就停下。你可以问我是谁，或者怎样更换我的脸、声音和语言模型。",),
        "model": ("还没有配置语言模型。{how}",),
        "how": (
            "请启动一个模型，比如 Ollama，或者使用兼容 OpenAI 的服务，再把它的地址和模型的名字告诉我。"
            "具体怎么写，请看说明文件。",
        ),
        "face": ("用 avatar 选项来选择：maya、leo、amara 或 kenji。avatar create 命令可以用照片做一个新的。",),
        "voice": ("用 voice name 选项按语言来选择。具体怎么写，请看说明文件。",),
        "thanks": ("不客气。", "不用谢。"),
        "bye": ("再见！", "下次见！"),
        "empty": ("对不起，我没听清。请再说一遍好吗？", "你说什么？"),
        "unknown": (
            "我听到的是：“{heard}”。我不知道怎么回答，因为还没有配置语言模型。{how}",
            "你说的是：“{heard}”。没有语言模型，我只能重复你的话。",
        ),
    },
)

LANGUAGES: dict[str, Language] = {"en": ENGLISH, "de": GERMAN, "fr": FRENCH, "es": SPANISH, "zh": CHINESE}
