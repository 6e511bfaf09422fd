/** What the policy in force lets through, asked with governed calls. */
import { askLegacy, toolCall } from './raw-http.ts';

/** Which of these tools may be called now. */
export async function callable({ base }: { readonly base: string }, ...tools: string[]): Promise<string[]> {
  const answers = await Promise.all(tools.map((tool) => askLegacy(base, toolCall(tool))));
  return tools.filter((_tool, index) => answers[index]!.json.result !== undefined);
}
