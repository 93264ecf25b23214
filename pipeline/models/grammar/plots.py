"""The plots: for each, the beats of the story in order and what a listener may ask about it.

Slots in braces are filled from the cast (`cast.slots_of`).
"""

from typing import Final

from pipeline.models.grammar.plot import Plot, core, extra, turn

LOST: Final = Plot(
    topics=("friendship", "helping each other", "good friends"),
    asks=("loses {a_thing}", "lost {his} {noun}", "looks for {his} {noun}", "cannot find {his} {noun}"),
    beats=(
        core(
            "{name} had {a_thing} that {he} loved very much.",
            "{His} favourite thing in the world was {a_thing}.",
            "{His} grandmother had given {him} {a_thing}, and {he} took it everywhere.",
        ),
        extra("Every night {he} put it beside {his} bed.", "{He} showed it to everyone {he} met.", "{He} played with it from morning until night."),
        turn(
            "But {day} the {noun} was gone.",
            "{Day} {name} woke up, and the {noun} was not there.",
            "{Day} {he} reached for the {noun}, but it was gone.",
        ),
        core('"Where is my {noun}?" {he} cried.', '"Oh no, I have lost my {noun}!" said {name}.', '"My {noun} is gone!" {he} called.'),
        core("{name} was very {mood}.", "{He} sat down and felt {mood}.", "This made {name} {mood}."),
        extra("{He} looked {spot1}, but it was not there.", "{He} searched {spot1} and found only some old leaves."),
        extra("Then {he} looked {spot2}, but it was not there either.", "{He} even searched {spot2}, but found nothing."),
        turn("Then {he} met {a_friend}.", "Just then {a_friend} came by.", "Soon {a_friend} heard {him} crying."),
        core('"Why are you so {mood}?" asked {friend}.', '"What is wrong?" asked {friend}.', '"Can I help you?" asked {friend}.'),
        core('"I have lost my {noun}," said {name}.', '"I cannot find my {noun} anywhere," said {name}.'),
        core('"Do not worry. I will help you look for it," said {friend}.', '"Then let us look for it together," said {friend}.'),
        extra("They walked and walked, and they looked in every corner.", "{friend} looked on the left, and {name} looked on the right."),
    ),
    happy_end=(
        turn(
            "At last they looked {spot3}, and there was the {noun}!",
            '"Look!" called {friend}. The {noun} was {spot3}!',
            "After a long time {friend} found the {noun} {spot3}.",
        ),
        core('{name} laughed with joy. "Thank you, {friend}!" {he} said.', '"You found it!" said {name}, and {he} hugged {friend}.'),
        core("From that day on, {name} and {friend} were best friends.", "They went home together, and {name} was happy again."),
    ),
    sad_end=(
        turn("They looked until the stars came out, but they did not find the {noun}.", "They looked all day, but the {noun} was lost for ever."),
        core("{name} went home with empty hands and a heavy heart.", "{name} cried a little, and {friend} held {his} hand."),
        core("{He} never saw the {noun} again.", "{He} still thinks of the {noun} every night."),
    ),
    moods=("sad", "unhappy", "upset"),
    because="{he} had lost {his} {noun}",
    happened="{name} lost {his} {noun}.",
    happy_summary="{Hero} lost {his} {noun} {place}, and {friend} helped {him} to find it.",
    sad_summary="{Hero} lost {his} {noun} {place}, and even with the help of {friend} {he} never found it.",
    morals=("A good friend makes every trouble smaller.", "With a friend at your side, you are never really lost."),
    titles=("The Lost {Noun}", "{name} and the Lost {Noun}", "Where Is the {Noun}?"),
    helped="{friend} helped {him} to look for the {noun}.",
)

FOUND: Final = Plot(
    topics=("honesty", "telling the truth", "being honest"),
    asks=("finds {a_thing}", "found {a_thing}", "picks up {a_thing}", "finds {a_thing} that is not {his}"),
    beats=(
        turn(
            "{Day} {name} found {a_thing} {spot1}.",
            "{Day} {he} went for a walk and saw {a_thing} {spot1}.",
            "{Day} something lay {spot1}. It was {a_thing}!",
        ),
        core('"What a {look} {noun}!" said {name}.', '"I have never seen such a {look} {noun}," said {name}.', '"Oh, how {look}!" {he} said.'),
        extra("{He} picked it up and turned it round and round.", "{He} cleaned it with {his} sleeve and held it up to the light."),
        extra("{He} wanted to keep it and never give it away.", "{He} dreamed of all the games {he} could play with it."),
        core("But the {noun} was not {his} own, and {he} felt {mood}.", "But whose {noun} was it? {name} was {mood}."),
        turn("On the way home {he} met {a_friend}.", "A little later {he} met {a_friend}.", "Then {he} saw {a_friend}."),
        core("{friend} was crying.", "There were big tears in {friend_his} eyes.", "{friend} looked under every stone and sighed."),
        core('"I have lost my {noun}," said {friend}.', '"My {noun} is gone, and I cannot find it," said {friend}.'),
    ),
    happy_end=(
        core("{name} thought for a moment.", "{name} looked at the {noun} and took a deep breath.", "{name} knew what was right."),
        turn('"Here it is. I found it {spot1}," {he} said.', '"I found it. It is yours," said {name}, and {he} gave it back.'),
        core('"Thank you! You are so honest," said {friend}.', "{friend} was so happy that {friend_he} danced."),
        core("After that they played with the {noun} together every day.", "From then on they shared the {noun}, and they were good friends."),
    ),
    sad_end=(
        core("But {name} hid the {noun} behind {his} back and said nothing.", '"I have not seen it," said {name}, but that was not true.'),
        turn("{friend} went home in tears.", "{friend} walked away slowly."),
        core("That night {name} could not sleep.", "Now the {noun} was not nice any more."),
        core("{He} wished that {he} had told the truth.", "{He} wanted to say sorry, but {friend} had moved far away."),
    ),
    moods=("worried", "uneasy", "unsure"),
    because="the {noun} was not {his} own",
    happened="{name} found {a_thing}.",
    happy_summary="{Hero} found {a_thing} {place} and gave it back to {friend}.",
    sad_summary="{Hero} found {a_thing} {place} and did not give it back to {friend}.",
    morals=("It always feels good to tell the truth.", "An honest heart finds good friends."),
    titles=("The {Noun} and the Truth", "{name} Finds {A_Noun}", "Whose {Noun} Is It?"),
    helped="Nobody helped {him}, but {he} met {friend}.",
)

SHARE: Final = Plot(
    topics=("sharing", "learning to share", "saying sorry"),
    asks=("does not want to share {his} {noun}", "learns to share {his} {noun}", "keeps {his} {noun} for {himself}"),
    beats=(
        core("{name} had {a_thing}, and {he} was very proud of it.", "For {his} birthday {he} got {a_thing}.", "{He} owned {a_thing} and loved it."),
        extra("There was no other {noun} like it far and wide.", "Nobody else had such a {look} {noun}."),
        turn("{Day} {a_friend} came to play.", "{Day} {he} met {a_friend}.", "{Day} {a_friend} knocked on the door."),
        core('"May I play with your {noun}?" asked {friend}.', '"What a {look} {noun}! Can I try it?" asked {friend}.'),
        core('"No! It is mine," said {name}.', '"No, you may not," said {name}. "It is only for me."'),
        core("{friend} went away with {friend_his} head down.", "{friend} said nothing and walked home."),
        extra("{name} played with the {noun} alone.", "{name} sat down with the {noun}, but no one was there to see it."),
        core("Soon {name} felt {mood}.", "After a while {he} was {mood}.", "It was very quiet, and {name} was {mood}."),
        extra('"What good is {a_noun} without a friend?" {he} thought.', '"I was not kind to {friend}," {he} thought.'),
    ),
    happy_end=(
        turn("So {name} ran to the house of {friend}.", "{He} picked up the {noun} and ran after {friend}."),
        core('"I am sorry. Let us share the {noun}," {he} said.', '"I am sorry, {friend}. You can play with it too," said {name}.'),
        core('"Thank you! That is kind of you," said {friend}.', "{friend} smiled, and all was well."),
        core("They played with the {noun} until the sun went down.", "Together they had twice as much fun as before."),
    ),
    sad_end=(
        turn("{He} ran to find {friend}, but it was too late.", "{He} waited for {friend} to come back, but the path stayed empty."),
        core("{friend} had found other friends to play with.", "{friend} did not want to play any more."),
        core("{name} put the {noun} in a box and never touched it again.", "So {name} had the {noun}, but {he} had no friend."),
    ),
    moods=("lonely", "sad", "sorry"),
    because="{he} did not share {his} {noun}, and {friend} went away",
    happened="{name} did not want to share {his} {noun}.",
    happy_summary="{Hero} did not want to share {his} {noun} at first, but then {he} said sorry and played with {friend}.",
    sad_summary="{Hero} did not share {his} {noun}, and so {he} lost {his} friend {friend}.",
    morals=("Things are more fun when we share them.", "A friend is worth more than any toy."),
    titles=("{name} Learns to Share", "The {Noun} for Two", "Mine and Yours"),
    helped="Nobody helped {him}. {He} had to learn it {himself}.",
)

BRAVE: Final = Plot(
    topics=("courage", "being brave", "being afraid"),
    asks=("is afraid of {fear}", "must be brave", "saves a friend with {a_thing}", "is scared of {fear} and has {a_thing}"),
    beats=(
        core("{name} was afraid of {fear}.", "There was one thing that {name} did not like, and that was {fear}."),
        core("{He} always carried {a_thing}.", "Only {his} {thing} made {him} feel safe.", "{His} mother gave {him} {a_thing} to make {him} strong."),
        extra("When {he} thought of {fear}, {his} knees began to shake.", '"I will never be brave," {he} said to {himself}.'),
        turn("{Day} there was a cry for help.", "{Day} {he} heard a small voice call for help.", "{Day} somebody shouted for help."),
        core("It was {a_friend}, who was stuck {spot1}.", "{A_friend} had fallen and was stuck {spot1}."),
        core('"Please help me!" called {friend}.', '"Is anybody there?" called {friend}.'),
        core("{name} was {mood}.", "{name} felt {mood}.", "At first {name} was too {mood} to move."),
        extra("{He} thought of {fear}, and {his} heart went boom, boom, boom.", "{He} looked at the {noun} and thought hard."),
    ),
    happy_end=(
        turn("But {he} held the {noun} tight and went on, step by step.", "But {he} took the {noun} and said, " + '"I can do it!"'),
        core("With the {noun} {he} reached {friend} and pulled {friend_him} out.", "{He} used the {noun} to set {friend} free."),
        core('"You are the bravest friend I know," said {friend}.', '"You saved me!" said {friend}.'),
        core("After that {name} was not afraid of {fear} any more.", "And {name} smiled, because now {he} knew that {he} was brave."),
    ),
    sad_end=(
        turn("{He} dropped the {noun} and ran home as fast as {he} could.", "{He} took three steps, and then {he} turned back."),
        core("{friend} had to wait all night until the others came.", "{friend} had to find the way out alone."),
        core("{name} cried, because {he} had not helped.", "{name} was sorry, and {he} hoped to do better next time."),
    ),
    moods=("scared", "frightened", "afraid"),
    because="{he} did not like {fear}",
    happened="{name} heard {friend} call for help.",
    happy_summary="{Hero} was afraid of {fear}, but with {his} {noun} {he} saved {friend}.",
    sad_summary="{Hero} was afraid of {fear} and ran away, and {friend} had to wait alone.",
    morals=("To be brave is to be afraid and to do it anyway.", "Even a small heart can be very brave."),
    titles=("Brave {name}", "{name} and the {Noun}", "The Night of the {Noun}"),
    helped="Nobody helped {him}, but {his} {noun} made {him} feel safe.",
)

GIFT: Final = Plot(
    topics=("mistakes", "birthdays", "giving"),
    asks=("wants to give away {a_thing}", "breaks {a_thing}", "makes a present", "brings {a_thing} to a friend"),
    beats=(
        core("{He} had a good friend, {a_friend}.", "{His} best friend was {a_friend}.", "Next door lived {a_friend}, and they were friends."),
        turn("{Day} it was the birthday of {friend}.", "{Day} {friend} had a birthday party."),
        core(
            '"I will give {friend_him} {a_thing}," said {name}.',
            "{name} wanted to bring {friend_him} {a_thing}.",
            "As a present {name} chose {a_thing}.",
        ),
        extra("{He} put it in a box with a pretty bow.", "{He} worked on it all week, until it was just right."),
        core("But on the way {he} slipped, and the {noun} broke.", "But {he} ran too fast and fell, and the {noun} broke in two."),
        core("{name} was very {mood}.", "{name} felt {mood}, and a tear ran down {his} nose.", "Now {name} was {mood}."),
        core('"Now my present is no good," {he} said.', '"What shall I do?" {he} asked.', '"I have no present now," {he} cried.'),
    ),
    happy_end=(
        turn("But {he} did not give up. {He} sat down and mended the {noun}.", "Then {he} had an idea. {He} put the pieces together with care."),
        extra("It did not look new, but it was made with love.", "One could still see the crack, but it was fine."),
        core('"This is the best present of all," said {friend}.', '"You mended it for me? I love it!" said {friend}.'),
        core("They ate cake and sang until late at night.", "Then everyone danced and had cake."),
    ),
    sad_end=(
        turn("{He} hid the pieces {spot1} and went home.", "{He} threw the pieces away and did not go to the party."),
        core("{friend} waited and waited at the door.", "At the party there was one empty chair."),
        core('"I missed you more than any present," {friend} said the next day.', "{name} could hear the songs from far away, and {he} felt alone."),
    ),
    moods=("sad", "upset", "unhappy"),
    because="the {noun} broke on the way",
    happened="{name} broke the present for {friend}.",
    happy_summary="{Hero} broke the {noun} that was a present for {friend}, but {he} mended it.",
    sad_summary="{Hero} broke the {noun} that was a present for {friend}, and so {he} missed the party.",
    morals=("What we give with love is always good enough.", "Everyone makes mistakes, and most things can be mended."),
    titles=("The Broken {Noun}", "A Present for {friend}", "{name} Mends {A_Noun}"),
    helped="Nobody helped {him}. The {noun} was for {friend}.",
)

CLIMB: Final = Plot(
    topics=("working together", "not giving up", "teamwork"),
    asks=("wants to reach {a_thing}", "never gives up", "dreams of {a_thing}", "tries to get {a_thing}"),
    beats=(
        turn("{Day} {name} saw {a_thing} high up in a tree.", "{Day} the wind blew {his} {thing} up into a tall tree."),
        core('"I want to get that {noun}," said {name}.', '"How can I get the {noun} down?" {he} asked.'),
        core("{He} jumped and jumped, but the branch was too high.", "{He} tried to climb the tree, but {he} slid down again."),
        extra("{He} threw a stick, but it fell on {his} head.", "{He} stood on a box, but the box was too small."),
        extra("{He} shook the tree, but only leaves came down.", "{He} tried again, and {he} fell on the soft grass."),
        core("{name} was {mood}.", "Now {name} felt {mood}.", "{He} sat down and was {mood}."),
        turn("Then {a_friend} came along.", "Just then {a_friend} came by.", "Soon {he} met {a_friend}."),
        core('"One is too small, but two are tall," said {friend}.', '"Let us try it together," said {friend}.'),
    ),
    happy_end=(
        core("{name} stood on the back of {friend} and reached up high.", "{friend} held {name} up as high as {friend_he} could."),
        turn("And then {he} had the {noun} in {his} hands!", '"I have it!" called {name}, and {he} waved the {noun}.'),
        core("They laughed and fell into the grass together.", "Both of them cheered so loudly that the birds flew up."),
        core("After that they always worked together.", "From that day on, they were a team."),
    ),
    sad_end=(
        core("{name} stood on the back of {friend}, but they were still too small.", "They tried all day long, but they could not reach it."),
        turn("In the night the wind took the {noun} away.", "Then it began to rain, and they had to go home."),
        core("The {noun} was gone, and {name} sighed.", "{name} looked back once more and felt sad."),
    ),
    moods=("angry", "tired", "cross"),
    because="{he} could not reach the {noun}",
    happened="{name} could not reach the {noun} in the tree.",
    happy_summary="{Hero} could not reach the {noun} in a tree, but together with {friend} {he} got it down.",
    sad_summary="{Hero} and {friend} tried to get the {noun} out of a tree, but they could not reach it.",
    morals=("Together we can do more than alone.", "Do not give up: try again with a friend."),
    titles=("The {Noun} in the Tree", "{name} and {friend}", "Up High"),
    helped="{friend} helped {him} to reach for the {noun}.",
)

KIND: Final = Plot(
    topics=("kindness", "being kind", "helping others"),
    asks=("gives away {his} {noun}", "helps a hungry friend", "is very kind and has {a_thing}", "sells {his} {noun}"),
    beats=(
        core(
            "{name} did not have much, only {a_thing}.",
            "All that {he} had in the world was {a_thing}.",
            "{He} had {a_thing} that shone like the sun.",
        ),
        extra("In the evening {he} looked at it and was happy.", "{He} kept it safe and warm."),
        turn("{Day} {he} met {a_friend}.", "{Day} {a_friend} sat by the road.", "{Day} {a_friend} knocked on the door."),
        core(
            '"I am so hungry," said {friend}.', '"I have not eaten for two days," said {friend}.', '"Please, do you have some food?" asked {friend}.'
        ),
        core("{name} was {mood}, because there was no food in the house.", "{name} had no food, and that made {him} {mood}."),
        core("So {he} took the {noun} to the market.", "Then {he} looked at the {noun} and had an idea. {He} went to the market."),
        core("There {he} gave the {noun} away for {food}.", '"Will you give me {food} for it?" {he} asked, and the baker said yes.'),
        core("{name} and {friend} sat down and ate.", "{He} brought the food to {friend}, and they ate it all up."),
    ),
    happy_end=(
        turn("The next day the {noun} lay in front of the door.", "The next morning the baker came and gave the {noun} back."),
        core('"It belongs to someone with a good heart," said a little note.', '"Keep it. You are so kind," the baker said.'),
        core("{name} jumped for joy, and {friend} clapped.", "{name} and {friend} laughed and were friends for ever."),
    ),
    sad_end=(
        turn("In the evening {name} missed the {noun}.", "That night the house was dark and empty without the {noun}."),
        core("The next day {friend} went away without a word.", "{He} went back to the market, but the {noun} had been sold."),
        core("{name} was sad, but {he} was not sorry that {he} had helped.", "{name} never saw the {noun} again."),
    ),
    moods=("sad", "troubled", "worried"),
    because="{friend} was hungry and there was no food",
    happened="{name} gave away {his} {noun} for {food}.",
    happy_summary="{Hero} gave away {his} {noun} to get food for {friend}, and in the end {he} got it back.",
    sad_summary="{Hero} gave away {his} {noun} to get food for {friend}, and {he} did not get it back.",
    morals=("Kindness always finds its way back.", "Who gives with a good heart is rich."),
    titles=("The Kind {Kind}", "{name} and the Hungry {Friend_kind}", "A {Noun} for Bread"),
    helped="Nobody helped {him}. {He} helped {friend}.",
)

PLOTS: Final = (LOST, FOUND, SHARE, BRAVE, GIFT, CLIMB, KIND)
