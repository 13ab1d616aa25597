// Has nothing but a pending call.
import { Provider } from "sandbox-host";

const provider = await Provider.open("modal", { readProfiles: false });
const sandbox = await provider.create({ image: "debian" });
void sandbox.run(["sleep", "1"]).then(({ exitCode }) => console.log(`result ${exitCode}`));
