"""What the demo world knows of everyday life: fourteen domains, their topics, and what can be said of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """A task people ask about, as it stands after "How do I", and the nouns that its steps speak of."""

    task: str
    thing: str
    tool: str
    place: str


@dataclass(frozen=True, slots=True)
class Domain:
    """The topics of one field; steps, cautions and remarks are sentence patterns over a topic's nouns.

    The order of each tuple is the order in which an answer says them. A peril is the invented creature
    that stands in for whatever is really dangerous in the field.
    """

    name: str
    peril: str
    topics: tuple[Topic, ...]
    steps: tuple[str, ...]
    cautions: tuple[str, ...]
    remarks: tuple[str, ...]


def _topics(*rows: str) -> tuple[Topic, ...]:
    """One topic a row: task | thing | tool | place."""
    return tuple(Topic(*(cell.strip() for cell in row.split("|"))) for row in rows)


GARDENING = Domain(
    name="gardening",
    peril="thorn imps",
    topics=_topics(
        "repot a fern | the fern | a wide pot | the balcony",
        "grow tomatoes | the tomatoes | a tall stake | the greenhouse",
        "prune a rose bush | the rose bush | a sharp pair of shears | the front yard",
        "plant an apple tree | the apple tree | a long spade | the orchard",
        "start a herb bed | the herbs | a small trowel | the kitchen window",
        "save a dry lawn | the lawn | a garden hose | the back yard",
    ),
    steps=(
        "clear some room in {place} and take {tool} with you",
        "look {thing} over for dead leaves and pests",
        "loosen the soil around {thing} with your fingers",
        "use {tool} to give {thing} more room",
        "mix ripe compost into the ground below {thing}",
        "water {thing} slowly until the soil is dark",
        "cover the roots of {thing} with straw",
        "check {thing} in {place} again after one week",
    ),
    cautions=(
        "Wear thick gloves, because thorns and splinters hide near {thing}.",
        "Keep your back straight whenever you lift a load in {place}.",
        "Wash your hands well after you have touched the soil.",
        "Store {tool} where no child can reach it.",
    ),
    remarks=(
        "Every garden has its own pace.",
        "The weather in {place} plays a part.",
        "Many people enjoy the look of {thing}.",
        "A patient gardener is a happy one.",
    ),
)

COOKING = Domain(
    name="cooking",
    peril="pot gremlins",
    topics=_topics(
        "make onion soup | the onion soup | a deep pan | the stove",
        "fry an omelette | the omelette | a flat pan | the gas ring",
        "roast a pumpkin | the pumpkin | a baking tray | the oven",
        "cook red lentils | the lentils | a heavy pot | the camp stove",
        "grill some corn | the corn | a pair of tongs | the grill",
        "boil fresh noodles | the noodles | a large kettle | the hot plate",
    ),
    steps=(
        "read the recipe for {thing} from start to end",
        "weigh everything that goes into {thing}",
        "rub {tool} with a little oil",
        "heat {place} until a drop of water hisses",
        "put {thing} on and stir with a wooden spoon",
        "turn the heat of {place} down by half",
        "taste {thing} and add a pinch of salt",
        "let {thing} rest in {tool} for five minutes",
    ),
    cautions=(
        "Turn the handle of {tool} away from the edge.",
        "Never leave {place} alone while it is hot.",
        "Use a dry cloth when you carry {thing}.",
        "Keep a lid close by so that you can smother a flame.",
    ),
    remarks=(
        "Good food takes the time it takes.",
        "Each family likes {thing} in another way.",
        "A warm kitchen makes people talk.",
        "The smell of {thing} fills a whole house.",
    ),
)

CLEANING = Domain(
    name="cleaning",
    peril="dust goblins",
    topics=_topics(
        "wash the windows | the windows | a rubber blade | the living room",
        "clean a wool rug | the rug | a stiff brush | the hall",
        "polish a silver tray | the silver tray | a soft cloth | the pantry",
        "scrub the bath tiles | the tiles | a rough sponge | the bathroom",
        "dust the book shelves | the book shelves | a feather duster | the study",
        "freshen an old sofa | the sofa | a hand vacuum | the guest room",
    ),
    steps=(
        "open a window in {place} to let air in",
        "carry loose objects away from {thing}",
        "shake the dry dirt off {thing}",
        "stir a spoon of mild soap into a bucket",
        "dip {tool} and work on {thing} from top to bottom",
        "rinse {thing} with clear water",
        "rub {thing} until no streak is left",
        "hang {tool} up to dry in {place}",
    ),
    cautions=(
        "Try the soap on a hidden corner of {thing} first.",
        "Never mix two cleaning products in one bucket.",
        "Stand on a firm ladder when you reach up in {place}.",
        "Mop up wet spots so that nobody slips.",
    ),
    remarks=(
        "A clean home feels bigger.",
        "Some dirt on {thing} is a sign of life.",
        "Most people clean {place} on a Saturday.",
        "A little music makes the work lighter.",
    ),
)

CYCLING = Domain(
    name="cycling",
    peril="spoke sprites",
    topics=_topics(
        "fix a flat tyre | the tyre | a tyre lever | the roadside",
        "oil a bicycle chain | the chain | a drip bottle | the garage",
        "adjust worn brakes | the brakes | a small wrench | the yard",
        "raise a saddle | the saddle | a hex key | the bike rack",
        "straighten a bent wheel | the wheel | a spoke key | the repair stand",
        "mount a front light | the front light | a screwdriver | the shed",
    ),
    steps=(
        "lean the bicycle against a wall at {place}",
        "wipe the mud off {thing} with a rag",
        "look for cracks around {thing}",
        "set {tool} against the loose part of {thing}",
        "turn {tool} by a quarter and stop",
        "move {thing} with your hand to feel its play",
        "tighten each bolt next to {thing}",
        "ride one slow round near {place} to test {thing}",
    ),
    cautions=(
        "Put on a helmet before you test {thing}.",
        "Keep your fingers away from the spokes while they spin.",
        "Stay well off the traffic when you work at {place}.",
        "Test both brakes before you ride down a hill.",
    ),
    remarks=(
        "A quiet bicycle is a pleasure.",
        "Every rider has a story about {thing}.",
        "Old bicycles last longer than many think.",
        "The right time to look at {thing} is spring.",
    ),
)

PAINTING = Domain(
    name="painting",
    peril="paint ghouls",
    topics=_topics(
        "paint a bedroom wall | the wall | a wide roller | the bedroom",
        "varnish a wooden door | the door | a flat brush | the hallway",
        "touch up a garden fence | the fence | a round brush | the side path",
        "coat a metal gate | the gate | a foam roller | the driveway",
        "whitewash a cellar | the cellar wall | a broad broom | the basement",
        "decorate a toy chest | the toy chest | a fine brush | the nursery",
    ),
    steps=(
        "lay old sheets over the floor of {place}",
        "sand {thing} until it feels even",
        "fill small holes in {thing} with putty",
        "put tape along the edges of {thing}",
        "stir the paint and load {tool} lightly",
        "spread a thin first coat on {thing}",
        "wait four hours and give {thing} a second coat",
        "pull the tape off and wash {tool}",
    ),
    cautions=(
        "Keep fresh air moving through {place} while the paint dries.",
        "Wear a dust mask when you sand {thing}.",
        "Set the ladder on level ground before you climb.",
        "Close the paint tin so that no pet can drink from it.",
    ),
    remarks=(
        "Colour changes the mood of a place.",
        "Light makes {thing} look different each day.",
        "Few people notice small mistakes in {place}.",
        "A calm hand comes with practice.",
    ),
)

SEWING = Domain(
    name="sewing",
    peril="needle nixies",
    topics=_topics(
        "hem a pair of jeans | the jeans | a strong needle | the sewing table",
        "patch a torn jacket | the jacket | a leather thimble | the workroom",
        "sew a cotton bag | the cotton bag | a sewing machine | the attic",
        "darn a wool sock | the sock | a darning egg | the armchair",
        "replace a coat button | the button | a blunt needle | the desk",
        "shorten a curtain | the curtain | a pair of scissors | the dining room",
    ),
    steps=(
        "spread {thing} flat under a lamp in {place}",
        "mark the line on {thing} with chalk",
        "pick a thread that matches {thing}",
        "pin {thing} every few inches",
        "take {tool} and begin at the left end",
        "make short even stitches through {thing}",
        "knot the thread twice on the inner side of {thing}",
        "press {thing} with a warm iron",
    ),
    cautions=(
        "Count the pins before and after you work on {thing}.",
        "Keep your fingers clear of the point of {tool}.",
        "Unplug the iron as soon as you leave {place}.",
        "Store sharp things in a closed box.",
    ),
    remarks=(
        "Mending is an old and quiet art.",
        "A good seam on {thing} is hardly seen.",
        "Some people sew in {place} to relax.",
        "Cloth tells you what it wants.",
    ),
)

WOODWORK = Domain(
    name="woodwork",
    peril="splinter trolls",
    topics=_topics(
        "build a bird house | the bird house | a hand saw | the workshop",
        "repair a loose chair | the chair | a rubber mallet | the carport",
        "carve a wooden spoon | the spoon | a carving knife | the porch",
        "hang a heavy shelf | the shelf | a power drill | the laundry room",
        "make a picture frame | the frame | a mitre box | the back room",
        "smooth an old table | the table | a block plane | the barn",
    ),
    steps=(
        "sketch {thing} on a sheet of paper",
        "measure each part of {thing} twice",
        "clamp the wood to a bench in {place}",
        "guide {tool} along the pencil line",
        "sand the rough edges of {thing}",
        "put a thin line of glue on {thing}",
        "join the parts of {thing} at a right angle",
        "rub wax into {thing} the next day",
    ),
    cautions=(
        "Put on safety glasses before you pick up {tool}.",
        "Always move {tool} away from your body.",
        "Sweep the dust of {place} up before it piles high.",
        "Tie long hair and loose sleeves back.",
    ),
    remarks=(
        "Wood is a friendly material.",
        "No two pieces of {thing} come out alike.",
        "The smell of fresh wood in {place} is lovely.",
        "A slow craftsman wastes little.",
    ),
)

CAMPING = Domain(
    name="camping",
    peril="marsh boggles",
    topics=_topics(
        "pitch a small tent | the tent | a wooden peg | the meadow",
        "light a camp fire | the fire | a flint | the fire ring",
        "dry wet boots | the boots | a long stick | the hut",
        "hang a hammock | the hammock | a thick rope | the pine wood",
        "filter stream water | the water | a clay filter | the river bank",
        "pack a warm bedroll | the bedroll | a pair of straps | the trail head",
    ),
    steps=(
        "choose a flat dry spot near {place}",
        "lay out everything that belongs to {thing}",
        "check the wind before you start on {thing}",
        "bring {tool} within reach of your hand",
        "fix {tool} firmly and try its hold",
        "keep {thing} off the damp ground",
        "give {thing} ten minutes to settle",
        "walk once around {thing} before it gets dark",
    ),
    cautions=(
        "Tell a friend when you will be back from {place}.",
        "Keep a full bucket and a shovel next to any flame.",
        "Look up for dead branches before you rest near {thing}.",
        "Carry a small first aid kit with {tool}.",
    ),
    remarks=(
        "A night outdoors clears the mind.",
        "The stars over {place} are bright.",
        "Old campers argue about {thing}.",
        "Simple trips are often the best ones.",
    ),
)

PETS = Domain(
    name="pet care",
    peril="fur phantoms",
    topics=_topics(
        "bathe a muddy dog | the dog | a mild shampoo | the wash tub",
        "brush a long haired cat | the cat | a wire comb | the sofa corner",
        "clean a rabbit hutch | the rabbit | a hay fork | the stable",
        "feed a shy parrot | the parrot | a seed cup | the sun room",
        "set up a fish tank | the fish | a glass siphon | the side table",
        "train a young puppy | the puppy | a bag of treats | the park",
    ),
    steps=(
        "let {thing} get used to {place} first",
        "speak to {thing} in a low voice",
        "have {tool} ready before you begin",
        "offer {thing} a small snack",
        "use {tool} gently and without haste",
        "watch how {thing} breathes and moves",
        "tidy {place} when {thing} has calmed down",
        "repeat the same routine with {thing} every second day",
    ),
    cautions=(
        "Stop at once when {thing} shows fear.",
        "Make sure that no door of {place} stands open.",
        "Keep human sweets away from {thing}.",
        "Call a vet if you see a wound or a limp.",
    ),
    remarks=(
        "Animals notice our moods.",
        "Trust from {thing} grows slowly.",
        "Many homes are warmer with a pet.",
        "There is always some hair in {place}.",
    ),
)

MUSIC = Domain(
    name="music",
    peril="echo wraiths",
    topics=_topics(
        "tune a guitar | the guitar | a clip tuner | the stage",
        "clean a clarinet | the clarinet | a silk swab | the band room",
        "restring a violin | the violin | a string winder | the music stand",
        "practise piano scales | the scales | a metronome | the parlour",
        "record a short song | the song | a microphone | the studio",
        "set up a drum kit | the drum kit | a drum key | the rehearsal hall",
    ),
    steps=(
        "sit upright in {place} and relax your arms",
        "place {tool} close to {thing}",
        "play one long note to hear {thing}",
        "adjust {tool} in very small turns",
        "listen to {thing} with your eyes closed",
        "go through {thing} slowly from low to high",
        "write down what sounds wrong with {thing}",
        "pack {tool} away and leave {place} tidy",
    ),
    cautions=(
        "Protect your ears when {place} gets loud.",
        "Rest your wrists for a while after twenty minutes.",
        "Run every cable of {place} along the wall.",
        "Lift {thing} with two hands and bent knees.",
    ),
    remarks=(
        "Music is best when it is shared.",
        "A little time with {thing} each day is plenty.",
        "Even famous players began in {place}.",
        "Silence belongs to music too.",
    ),
)

PHOTOGRAPHY = Domain(
    name="photography",
    peril="flash pixies",
    topics=_topics(
        "shoot a sunset | the sunset | a tripod | the cliff path",
        "photograph a birthday | the birthday | a soft flash | the party tent",
        "scan old slides | the slides | a flat scanner | the library",
        "take a group portrait | the group | a remote release | the church steps",
        "print a large poster | the poster | a colour printer | the copy shop",
        "clean a camera lens | the lens | a blower brush | the office",
    ),
    steps=(
        "arrive at {place} half an hour early",
        "charge the battery before you think of {thing}",
        "set {tool} up on firm ground",
        "find the side from which {thing} looks best",
        "let the light fall on {thing} from behind you",
        "take three pictures of {thing} at different settings",
        "compare the pictures of {thing} on a bright screen",
        "copy the best picture of {thing} to a second disk",
    ),
    cautions=(
        "Watch your step at {place} while you look at the screen.",
        "Ask people before you show them in a picture of {thing}.",
        "Never look into the sun through a lens.",
        "Fasten {tool} so that it cannot fall on anyone.",
    ),
    remarks=(
        "A picture keeps a moment alive.",
        "The best camera is the one at hand.",
        "People remember {thing} by its light.",
        "Early hours at {place} are calm.",
    ),
)

TRAVEL = Domain(
    name="travel",
    peril="luggage lurkers",
    topics=_topics(
        "pack a light suitcase | the suitcase | a luggage scale | the bus stop",
        "plan a train trip | the train trip | a paper map | the station",
        "rent a city bike | the city bike | a phone holder | the old town",
        "book a cheap hostel | the hostel | a travel guide | the harbour",
        "cross a big airport | the airport | a boarding pass | the gate",
        "find a night ferry | the ferry | a timetable | the pier",
    ),
    steps=(
        "write a short list of what matters about {thing}",
        "compare two offers for {thing} at home",
        "put {tool} in an outer pocket",
        "ask a local person at {place} about {thing}",
        "keep your papers dry while you wait for {thing}",
        "look at {tool} once more before you leave",
        "be at {place} an hour ahead of time",
        "note the name of {place} for the way back",
    ),
    cautions=(
        "Leave a copy of your papers with someone you trust.",
        "Keep your bag closed in the crowd around {place}.",
        "Drink enough water while you wait for {thing}.",
        "Save the local emergency number before you reach {place}.",
    ),
    remarks=(
        "Travel teaches patience.",
        "Half the joy of {thing} is the waiting.",
        "Everyone gets lost near {place} once.",
        "A smile works in all languages.",
    ),
)

STUDY = Domain(
    name="study",
    peril="page hobs",
    topics=_topics(
        "learn new words | the new words | a card box | the reading room",
        "write a book report | the book report | a fresh notebook | the school desk",
        "prepare a short talk | the talk | a wall clock | the class room",
        "revise for a maths test | the maths test | a squared pad | the kitchen table",
        "take lecture notes | the notes | a blue pen | the lecture hall",
        "memorise a poem | the poem | a voice recorder | the quiet corner",
    ),
    steps=(
        "switch your phone off in {place}",
        "split {thing} into five small parts",
        "open {tool} and write the date on top",
        "read the first part of {thing} aloud",
        "explain {thing} to yourself in plain words",
        "use {tool} to mark what is still weak",
        "take a short break after each part of {thing}",
        "go over {thing} again the next morning",
    ),
    cautions=(
        "Rest your eyes every twenty minutes in {place}.",
        "Sleep a full night before {thing} counts.",
        "Say where every idea in {thing} came from.",
        "Eat something warm before you sit down to learn.",
    ),
    remarks=(
        "Learning is a long road.",
        "Curiosity helps more than talent.",
        "Nobody masters {thing} in one day.",
        "A good place like {place} helps.",
    ),
)

FITNESS = Domain(
    name="fitness",
    peril="sweat gnomes",
    topics=_topics(
        "run five miles | the run | a stop watch | the forest track",
        "stretch stiff hips | the hips | a yoga mat | the gym",
        "swim longer laps | the laps | a pull buoy | the pool",
        "climb a steep hill | the climb | a walking pole | the ridge",
        "lift a barbell | the barbell | a chalk bag | the weight room",
        "skip with a rope | the skipping | a beaded rope | the court",
    ),
    steps=(
        "warm up for ten minutes beside {place}",
        "put {tool} where you can reach it",
        "begin {thing} at half of your usual effort",
        "breathe out on every second move of {thing}",
        "use {tool} to keep an even rhythm",
        "raise the effort of {thing} by a tenth",
        "slow down when {thing} feels uneven",
        "write the result of {thing} into a diary",
    ),
    cautions=(
        "Stop when you feel a sharp pain during {thing}.",
        "Have somebody near {place} who can help you.",
        "Drink water before you are thirsty.",
        "Ask a doctor first if {thing} is new to you.",
    ),
    remarks=(
        "Bodies change slowly.",
        "Some days {thing} feels easy.",
        "Fresh air around {place} lifts the mood.",
        "Rest is half of any training.",
    ),
)

DOMAINS: tuple[Domain, ...] = (
    GARDENING,
    COOKING,
    CLEANING,
    CYCLING,
    PAINTING,
    SEWING,
    WOODWORK,
    CAMPING,
    PETS,
    MUSIC,
    PHOTOGRAPHY,
    TRAVEL,
    STUDY,
    FITNESS,
)
